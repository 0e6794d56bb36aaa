/* Lists beside the drawing whose rows are drawn in the browser. */

(() => {
    const drawers = ((window.cltdb = window.cltdb || {}).drawers = window.cltdb.drawers || {});
    const graph = window.cltdb.graph;
    const MEASURED = "what the target loses when an intervention removes the source";

    /* The strongest inputs or outputs of a node on its card (dashboards/graph/card.py): each other end is a button that selects it. */
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
        if (!ends.length) element.append(make("p", { class: "quiet" }, "none"));
        else appendRows(element, ends, nFirst, row);
    };

    /* The strongest paths from the inputs to the answers, by answer (dashboards/graph/input_paths.py): each is a button that draws it. */
    drawers.inputPaths = (element, { targets, n_first: nFirst }) => {
        const make = window.cltdb.element;
        const step = (name, i) => [i ? " → " : null, make("bdi", {}, name)];
        const row = ({ path_id: id, line, title, weight, share, bar, tone }) =>
            make(
                "li",
                { class: tone, "--share": bar },
                make("button", { class: "link what", type: "button", "data-stored": id, title, "aria-pressed": String(graph.state.stored_path === id) }, line.flatMap(step)),
                make("span", { class: "value" }, weight, make("small", {}, share)),
            );
        targets.forEach(({ name, said, paths }, i) => {
            const part = make("details", { open: i === 0 }, make("summary", {}, "to ", make("bdi", {}, name)), make("p", { class: "quiet" }, said));
            appendRows(part, paths, nFirst, row);
            element.append(part);
        });
    };

    document.addEventListener("click", (event) => {
        const id = event.target.closest?.("[data-stored]")?.dataset.stored;
        if (id === undefined || !graph.data) return;
        graph.set({ path: null, stored_path: graph.state.stored_path === Number(id) ? null : Number(id) });
    });

    graph.on((changed) => {
        if (!changed.has("stored_path")) return;
        for (const button of document.querySelectorAll("[data-stored]"))
            button.setAttribute("aria-pressed", String(graph.state.stored_path === Number(button.dataset.stored)));
    });

    /* The first rows, and those after them once they are asked for. */
    function appendRows(parent, rows, nFirst, row) {
        const make = window.cltdb.element;
        const list = (some) => make("ol", { class: "edge-list" }, some.map(row));
        parent.append(list(rows.slice(0, nFirst)));
        const rest = rows.slice(nFirst);
        if (!rest.length) return;
        const more = make("details", { class: "more" }, make("summary", {}, `${rest.length} more`));
        more.addEventListener("toggle", () => more.append(list(rest)), { once: true });
        parent.append(more);
    }
})();
