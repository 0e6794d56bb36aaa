// What screen readers and the keyboard need and Dash's components lack. Each repair is (elements that need it, what to do to one); an element
// that was mended no longer fits its selector.
(() => {
    "use strict";
    const repairs = [
        // The label of a dropdown leads to this hidden field, which hands the focus on; the Tab key should not stop at it.
        [".dash-dropdown-focus-target:not([tabindex='-1'])", (field) => field.setAttribute("tabindex", "-1")],
        // The words before a slider name its thumb.
        [
            ".slider [role='slider']:not([aria-label])",
            (thumb) => thumb.setAttribute("aria-label", thumb.closest(".slider").firstElementChild.textContent),
        ],
        // The window of a dropdown is named by what was asked.
        [".dash-dropdown-content[role='dialog']:not([aria-label])", (dialog) => dialog.setAttribute("aria-label", labelOf(dialog))],
        // The place in the masthead where one is; dcc.Link takes no such attribute.
        [".place.here:not([aria-current])", (link) => link.setAttribute("aria-current", "page")],
        [".place[aria-current]:not(.here)", (link) => link.removeAttribute("aria-current")],
        // A list of checkboxes is a group of them, no list of options.
        ["[role='listbox']:has(> .dash-options-list-option)", (list) => list.setAttribute("role", "group")],
        ["[role='group'] > .dash-options-list-option[role='option']", (option) => option.removeAttribute("role")],
        ["[role='group'] > .dash-options-list-option[aria-selected]", (option) => option.removeAttribute("aria-selected")],
    ];

    function labelOf(dialog) {
        const label = document.querySelector(`[aria-controls="${dialog.id}"]`)?.closest("label");
        return label?.firstChild.textContent.trim() || "Choices";
    }

    function mend() {
        waiting = false;
        for (const [selector, repair] of repairs) document.querySelectorAll(selector).forEach(repair);
    }

    let waiting = false;
    new MutationObserver(() => {
        if (waiting) return;
        waiting = true;
        requestAnimationFrame(mend);
    }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected", "tabindex", "class"] });
})();
