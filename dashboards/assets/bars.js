// Small figures of bars (dashboards/feature/figures.py): places and heights are shares of the axes, so text keeps its size at any width.
(function () {
    window.cltdb = window.cltdb || {};
    const drawers = (cltdb.drawers = cltdb.drawers || {});
    const HEIGHT = 110, ABOVE = 18, BELOW = 38; // pixels of the bars, and of the text above and below them
    const percent = (share) => `${(100 * share).toFixed(2)}%`;

    // Which end of a text stands at a place, so that it stays within the figure.
    const anchor = (x) => (x < 0.06 ? "start" : x > 0.94 ? "end" : "middle");

    drawers.bars = function (element, data) {
        if (data.nothing) return element.append(cltdb.element("p", { class: "quiet" }, data.nothing));
        const floor = ABOVE + HEIGHT;
        const svg = cltdb.element("svg:svg", { class: "bars", width: "100%", height: floor + BELOW, "aria-hidden": "true" });
        for (const bar of data.bars) {
            const height = Math.max(1, HEIGHT * bar.height);
            const thin = bar.width == null;
            svg.append(
                cltdb.element(
                    "svg:rect",
                    {
                        class: `bin ${bar.tone || ""}`, x: percent(bar.x), y: floor - height, height,
                        width: thin ? 2 : percent(bar.width), transform: thin ? "translate(-1)" : null,
                    },
                    cltdb.element("svg:title", {}, bar.hint),
                ),
            );
        }
        svg.append(cltdb.element("svg:line", { class: "floor", x1: 0, x2: "100%", y1: floor, y2: floor }));
        for (const tick of data.ticks)
            svg.append(cltdb.element("svg:text", { x: percent(tick.x), y: floor + 14, "text-anchor": anchor(tick.x) }, tick.text));
        data.lines.forEach((line, i) => {
            const before = i ? line.x > 0.9 : line.x > 0.12; // the first line's text stands before it, the second's after it
            svg.append(
                cltdb.element("svg:line", { class: "mark", x1: percent(line.x), x2: percent(line.x), y1: ABOVE, y2: floor }),
                cltdb.element(
                    "svg:text",
                    { class: "mark", x: percent(line.x), y: ABOVE - 5, "text-anchor": before ? "end" : "start" },
                    line.text,
                ),
            );
        });
        svg.append(cltdb.element("svg:text", { x: "50%", y: floor + 31, "text-anchor": "middle" }, data.axis));
        element.append(svg);
        if (data.tokens)
            element.append(
                cltdb.element("div", { class: "ends" }, ...data.tokens.map((text) => cltdb.element("bdi", {}, text))),
            );
    };
})();
