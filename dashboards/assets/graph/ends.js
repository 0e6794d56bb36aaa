/* The strongest inputs or outputs of a node on its card (dashboards/graph/card.py): each other end is a button that selects it. */

(() => {
    const drawers = ((window.cltdb = window.cltdb || {}).drawers = window.cltdb.drawers || {});
    const MEASURED = "what the target loses when an intervention removes the source";

    drawers.ends = (element, { ends, n_first: nFirst }) => {
        const make = window.cltdb.element;
        const row = ({ node, name, text, weight, measured, share, tone }) =>
            make(
                "li",
                { class: tone, "--share": share },
                make(
                    "span", { class: "what" }, make("button", { class: "link", type: "button", title: text || null, "data-node": node }, make("bdi", {}, name)),
                    text ? [" ", make("bdi", {}, text)] : null,
                ),
                make("span", { class: "value" }, weight, measured ? make("small", { title: MEASURED }, measured) : null),
            );
        const list = (rows) => make("ol", { class: "edge-list" }, rows.map(row));
        if (!ends.length) return element.append(make("p", { class: "quiet" }, "none"));
        element.append(list(ends.slice(0, nFirst)));
        const rest = ends.slice(nFirst);
        if (!rest.length) return;
        const more = make("details", { class: "more" }, make("summary", {}, `${rest.length} more`));
        more.addEventListener("toggle", () => more.append(list(rest)), { once: true });
        element.append(more);
    };
})();
