/* The tabs beside the drawing: one panel at a time; arrow keys go from tab to tab. */

(() => {
    const graph = window.cltdb.graph;
    const tabs = () => [...document.querySelectorAll("[data-tab]")];

    document.addEventListener("click", (event) => {
        const tab = event.target.closest?.("[data-tab]");
        if (tab && graph.data) graph.set({ tab: tab.dataset.tab });
    });

    document.addEventListener("keydown", (event) => {
        if (!event.target.matches?.("[data-tab]") || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
        const all = tabs();
        const step = event.key === "ArrowRight" ? 1 : all.length - 1;
        const next = all[(all.indexOf(event.target) + step) % all.length];
        next.focus();
        graph.set({ tab: next.dataset.tab });
    });

    graph.on(() => {
        const all = tabs();
        const known = all.some((tab) => tab.dataset.tab === graph.state.tab);
        for (const tab of all) {
            const isShown = tab.dataset.tab === (known ? graph.state.tab : all[0].dataset.tab);
            tab.setAttribute("aria-selected", isShown);
            tab.tabIndex = isShown ? 0 : -1;
            document.getElementById(tab.getAttribute("aria-controls")).hidden = !isShown;
        }
    });
})();
