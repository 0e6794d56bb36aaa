/* The drawing of a graph follows the state of its page: after each change what differs is brought up to date. A selection changes the marks and
   edges that it is about; all else stays. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    let scene = null;
    let edgesOf = null;
    let byNode = null;

    const widths = new Map();
    const pen = document.createElement("canvas").getContext("2d");
    drawing.measure = (text) => {
        if (!widths.has(text)) {
            pen.font = `${drawing.TEXT}px ${getComputedStyle(document.body).fontFamily}`;
            widths.set(text, Math.ceil(pen.measureText(text).width) + 1);
        }
        return widths.get(text);
    };

    /* Brings the drawing in `container` up to date with `cltdb.graph`. */
    drawing.draw = (container) => {
        const graph = window.cltdb.graph;
        if (scene?.container !== container || !container.contains(scene.scroll)) {
            scene = drawing.scene(container);
            drawing.listen(scene);
        }
        if (!graph.data || !graph.pruned) return;
        if (edgesOf !== graph.pruned) {
            edgesOf = graph.pruned;
            byNode = drawing.edgesByNode(graph.pruned);
        }
        const { still: stillBefore, lit: litBefore } = scene;
        const still = drawing.still(graph, scene);
        const lit = drawing.lit(graph, still, byNode);
        Object.assign(scene, { still, lit });
        const dressed = (node) => ({ ...node, classes: drawing.classesOf(node, lit.classes), ringed: node.ringed || lit.focus.has(node.id) });
        if (still !== stillBefore) {
            drawing.showAxes(scene, still.layout, graph.data, still.tokenAxis);
            drawing.keepPlace(scene, stillBefore?.data === graph.data ? stillBefore.layout : null);
            drawing.showNodes(scene, [...still.nodes.values()].map(dressed), still.chips);
        } else {
            const touched = new Set([...litBefore.classes.keys(), ...lit.classes.keys()]);
            const changed = [...touched].filter((id) => still.nodes.has(id) && litBefore.classes.get(id) !== lit.classes.get(id));
            drawing.touchNodes(scene, changed.map((id) => dressed(still.nodes.get(id))));
        }
        scene.plane.classList.toggle("focused", lit.focus.size > 0);
        drawing.showEdges(scene.layer.rest, lit.edges.rest, 3, false);
        drawing.showEdges(scene.layer.own, lit.edges.own, 5);
        drawing.showEdges(scene.layer.path, lit.edges.path, 6);
        drawing.showLabels(scene, lit.labels);
        drawing.keepWalking(scene);
        drawing.say(scene, null);
    };

    /* The line below the drawing: the node that is pointed at, or how much is drawn. */
    drawing.say = (into, text) => {
        const said = text || into.lit?.said || "";
        if (into.said.textContent !== said) into.said.textContent = said;
    };

    const redraw = () => {
        const container = document.getElementById("graph-drawing");
        if (container) drawing[window.cltdb.graph.state.view === "subgraph" ? "drawSubgraph" : "draw"](container);
    };

    window.addEventListener("resize", () => {
        const container = document.getElementById("graph-drawing");
        if (container) drawing.fitIntoWindow(container); // the drawing follows, as its size is observed
    });

    /* Several changes in a row are drawn once. */
    let waits = false;
    drawing.redraw = () => {
        if (waits) return;
        waits = true;
        queueMicrotask(() => {
            waits = false;
            redraw();
        });
    };

    window.cltdb.graph.draw = drawing.draw;
    window.cltdb.graph.on(drawing.redraw);
})();
