/* The drawing of a graph: a mark per shown node, by token position and layer. */

(() => {
    const cltdb = (window.cltdb = window.cltdb || {});
    const SVG = "http://www.w3.org/2000/svg";

    cltdb.graph.on((_, graph) => {
        const container = document.getElementById("graph-drawing");
        if (container && graph.data && graph.pruned) draw(container, graph);
    });

    function draw(container, { data, state, shown }) {
        const svg = document.createElementNS(SVG, "svg");
        svg.setAttribute("viewBox", `0 0 ${100 * (data.tokens.length + 1)} ${60 * (data.n_layers + 2)}`);
        for (const id of shown()) {
            const i = data.byId.get(id);
            const row = { embedding: -1, logit: data.n_layers }[data.nodes.kind[i]] ?? data.nodes.layer[i];
            const mark = document.createElementNS(SVG, "circle");
            mark.setAttribute("class", `node ${data.nodes.kind[i]}${id === state.selected ? " selected" : ""}`);
            mark.setAttribute("cx", 100 * (data.nodes.position[i] || 0) + 50 + (id % 7) * 6);
            mark.setAttribute("cy", 60 * (data.n_layers - row) + 30);
            mark.setAttribute("r", 5);
            mark.setAttribute("data-node", id);
            mark.setAttribute("tabindex", -1);
            mark.setAttribute("aria-label", data.nodes.title[i]);
            svg.append(mark);
        }
        container.replaceChildren(svg);
    }
})();
