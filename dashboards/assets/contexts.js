// Windows of text with heat (dashboards/feature/contexts.py). A band that is folded has no tokens in the page until it unfolds.
(function () {
    window.cltdb = window.cltdb || {};
    const drawers = (cltdb.drawers = cltdb.drawers || {});

    // The tokens `first` to `end` of a window, each isolated from the direction of writing of the others.
    function tokens(window, first, end) {
        const spans = [];
        for (let i = first; i < end; i++) {
            const heat = window.heat[i];
            const hint = `${window.whole[i] || window.strings[i]}\nactivation ${window.activations[i]} · position ${window.start + i}`;
            spans.push(
                cltdb.element(
                    "bdi",
                    { class: "token" + (i === window.peak ? " peak" : "") + (window.marked?.includes(i) ? " marked" : ""), "--heat-share": heat || null, title: hint },
                    window.strings[i],
                ),
            );
            if (window.spaced) spans.push(" ");
        }
        return spans;
    }
    cltdb.tokens = tokens;

    // The text of a window, trimmed around its peak; a button at each cut end shows all of it.
    function text(window) {
        const line = cltdb.element("p", { class: "window", dir: "ltr" });
        const length = window.strings.length;
        const cut = window.first > 0 || window.end < length;
        function show(whole) {
            const more = (text, label) =>
                cltdb.element("button", { class: "more", type: "button", "aria-label": label, onclick: () => (show(!whole), line.querySelector("button").focus()) }, text);
            const [first, end] = whole ? [0, length] : [window.first, window.end];
            line.replaceChildren(
                ...(window.first > 0 && !whole ? [more("…", "show the whole window")] : []),
                ...tokens(window, first, end),
                ...(window.end < length && !whole ? [more("…", "show the whole window")] : []),
                ...(cut && whole ? [more("less", "show the peak only")] : []),
            );
        }
        show(false);
        return line;
    }

    function row(window) {
        const tag = (text, hint) => cltdb.element("span", { class: "tag", title: hint }, text);
        const value = cltdb.element(
            "div",
            { class: "peak-value", title: window.where },
            window.value,
            window.n > 1 ? tag(`×${window.n}`, `${window.n} windows with this text, peaks ${window.lowest} to ${window.value}`) : null,
            window.label ? tag(cltdb.element("bdi", {}, window.label), "label of the text") : null,
        );
        return cltdb.element("li", {}, value, text(window));
    }

    function band(one, open) {
        const n = one.windows.length;
        const counted = n < one.n ? `${one.n} windows, ${n} different` : one.n === 1 ? "1 window" : `${one.n} windows`;
        const list = cltdb.element("ul", { class: "windows" });
        const fill = () => list.childElementCount || list.append(...one.windows.map(row));
        if (open) fill();
        return cltdb.element(
            "details",
            { open, ontoggle: fill },
            cltdb.element("summary", {}, one.title, cltdb.element("small", {}, one.peaks ? `${counted}, peaks ${one.peaks}` : counted)),
            list,
        );
    }

    // The windows behind scores (dashboards/feature/judged.py): of each score the windows that were judged alike, filled in when it unfolds.
    function judged(score, windows) {
        const groups = cltdb.element("div");
        const one = (window) => {
            const line = text(window);
            if (window.kind) line.append(" ", cltdb.element("span", { class: "tag" }, window.kind));
            return cltdb.element("li", {}, line);
        };
        const group = ({ title, windows: places }) => [
            cltdb.element("h3", {}, title, cltdb.element("small", {}, `${places.length}`)),
            cltdb.element("ul", { class: "windows judged" }, ...places.map((i) => one(windows[i]))),
        ];
        const fill = () => groups.childElementCount || groups.append(...score.groups.flatMap(group));
        return cltdb.element("details", { ontoggle: fill }, cltdb.element("summary", {}, score.title), groups);
    }

    drawers.judged = (element, data) => element.append(...data.scores.map((score) => judged(score, data.windows[score.scorer])));
    drawers.contexts = (element, data) => element.append(...data.bands.map((one, i) => band(one, i === 0)));
    drawers.snippets = (element, data) => element.append(...data.windows.map(text));
})();
