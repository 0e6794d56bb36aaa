/* Buttons of the graph page: data-act names what they do, data-of the node they do it to. */

(() => {
    const graph = window.cltdb.graph;
    const ACTS = {
        pin: (id) => graph.pin(id, !graph.state.pinned.includes(id)),
        hide: (id) => graph.hide(id, !graph.state.hidden.includes(id)),
        from: (id) => showPath(id, graph.state.path?.to ?? firstAnswer()),
        to: (id) => showPath(graph.state.path?.from ?? firstToken(), id),
        nopath: () => graph.set({ path: null, stored_path: null }),
        edges: () => graph.set({ edges: graph.state.edges === "all" ? "selection" : "all" }),
        view: () => graph.set({ view: graph.state.view === "graph" ? "subgraph" : "graph" }),
        larger: () => graph.set({ zoom: Math.min(8, graph.state.zoom * 1.2) }),
        smaller: () => graph.set({ zoom: Math.max(1, graph.state.zoom / 1.2) }),
        fit: () => graph.set({ zoom: 1, open: [] }),
        svg: () => graph.exportSvg(),
        png: () => graph.exportPng(),
    };
    /* Buttons whose text says what the next click does: act -> [text, text while it is on, whether it is on]. */
    const TOGGLES = {
        pin: ["Pin", "Unpin", (id) => graph.state.pinned.includes(id)],
        hide: ["Hide", "Show again", (id) => graph.state.hidden.includes(id)],
        edges: ["All edges", "Edges of the selection", () => graph.state.edges === "all"],
        view: ["What is pinned", "Whole graph", () => graph.state.view === "subgraph"],
    };

    const showPath = (from, to) => graph.set({ path: { from, to }, stored_path: null, tab: "paths" });
    const ofKind = (kind) => graph.data.nodes.id.filter((_, i) => graph.data.nodes.kind[i] === kind);
    const firstAnswer = () => ofKind("logit")[0];
    const firstToken = () => ofKind("embedding").at(-1);

    document.addEventListener("click", (event) => {
        const button = event.target.closest?.("[data-act]");
        if (button && graph.data && button.dataset.act in ACTS) ACTS[button.dataset.act](Number(button.dataset.of));
    });

    document.addEventListener("input", (event) => {
        if (event.target.id === "graph-find") graph.set({ find: event.target.value });
        if (event.target.id === "graph-density") graph.set({ density: event.target.value === "" ? 1 : Number(event.target.value) }); // empty: no limit
    });

    graph.on(() => {
        label();
        fillIn("graph-find", graph.state.find);
        fillIn("graph-density", String(graph.state.density));
        say();
    });
    /* A new card brings buttons that do not know the state yet. */
    const isNew = ({ addedNodes }) => [...addedNodes].some((node) => node instanceof HTMLElement);
    new MutationObserver((changes) => changes.some(isNew) && label()).observe(document, { childList: true, subtree: true });

    function label() {
        for (const [act, [off, on, isOn]] of Object.entries(TOGGLES))
            for (const button of document.querySelectorAll(`[data-act="${act}"]`)) {
                const text = isOn(Number(button.dataset.of)) ? on : off;
                if (button.textContent !== text) button.textContent = text;
            }
    }

    function fillIn(id, value) {
        const field = document.getElementById(id);
        if (field && field !== document.activeElement && field.value !== value) field.value = value;
    }

    function say() {
        const line = document.getElementById("graph-found");
        if (!line || !graph.data) return;
        const found = graph.matches();
        const shown = found.length ? graph.shown() : new Set();
        const hidden = found.filter((id) => !shown.has(id)).length;
        const text = graph.state.find ? `${found.length} found${hidden ? `, ${hidden} of them not shown` : ""}` : "";
        if (line.textContent !== text) line.textContent = text;
    }
})();
