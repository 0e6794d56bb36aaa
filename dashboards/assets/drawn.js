// Draws the elements of dashboards/drawn.py: whatever stands in the page with data-drawn="KIND" is filled by cltdb.drawers[KIND](element, data).
window.cltdb = window.cltdb || {};
cltdb.drawers = cltdb.drawers || {};

// An element (of SVG where the name begins with svg:) with attributes and children; strings become text nodes. Values that are null are left out.
cltdb.element = function (name, attributes = {}, ...children) {
    const made = name.startsWith("svg:")
        ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
        : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (value == null || value === false) continue;
        if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
        else if (key.startsWith("--")) made.style.setProperty(key, value);
        else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child != null));
    return made;
};

// Goes to another page of the app, as a link of Dash does.
cltdb.visit = function (path) {
    window.history.pushState({}, "", path);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
};

// What would be components of Dash, as elements: strings, and [tag, attributes, child, …].
cltdb.drawers.plain = function (element, nodes) {
    const made = (node) => (typeof node === "string" ? node : cltdb.element(node[0], node[1], ...node.slice(2).map(made)));
    element.append(...nodes.map(made));
};
document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-visit]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    cltdb.visit(link.getAttribute("href"));
});

(function () {
    function draw(element) {
        const drawer = cltdb.drawers[element.dataset.drawn];
        if (!drawer || element.drawnOf === element.dataset.of) return;
        element.drawnOf = element.dataset.of;
        element.replaceChildren();
        drawer(element, JSON.parse(element.dataset.of));
    }

    function look(changes) {
        for (const change of changes) {
            if (change.type === "attributes") draw(change.target);
            for (const added of change.addedNodes) {
                if (!(added instanceof HTMLElement)) continue;
                if (added.dataset.drawn) draw(added);
                else added.querySelectorAll("[data-drawn]").forEach(draw);
            }
        }
    }

    new MutationObserver(look).observe(document, {
        childList: true, subtree: true, attributes: true, attributeFilter: ["data-of", "data-drawn"],
    });
})();
