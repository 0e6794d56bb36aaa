/* The drawing of a graph from the state of its page: the whole of it is brought up to date after each change. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const MAX_LABELS = 900;
    const HUES = 8;
    const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const HINT = "Click a node to read it; Shift and drag to select several.";
    let scene = null;
    let edgesOf = null;
    let byNode = null;

    drawing.letter = (index) => (index < 26 ? LETTERS[index] : LETTERS[Math.floor(index / 26) - 1] + LETTERS[index % 26]);

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
        const what = picture(graph);
        const before = scene.data === graph.data ? scene.layout : null;
        Object.assign(scene, { layout: what.layout, data: graph.data });
        drawing.showAxes(scene, what.layout, graph.data, what.tokenAxis);
        drawing.keepPlace(scene, before);
        scene.plane.classList.toggle("focused", what.focus.size > 0);
        drawing.showEdges(scene.layer.rest, what.edges.rest, 3, false);
        drawing.showEdges(scene.layer.own, what.edges.own, 5);
        drawing.showEdges(scene.layer.path, what.edges.path, 6);
        drawing.showNodes(scene, what.nodes, what.chips);
        drawing.showLabels(scene, what.labels);
        scene.hint = what.said;
        drawing.keepWalking(scene);
        drawing.say(scene, null);
    };

    /* Everything that is drawn, as plain values. */
    function picture(graph) {
        const { data, pruned, state } = graph;
        const paths = state.path ? graph.paths?.paths || [] : [];
        const focus = new Set([...(state.selected === null ? [] : [state.selected]), ...state.also]);
        const found = new Set(graph.matches());
        const must = new Set([...focus, ...state.pinned, ...paths.flatMap((path) => path.nodes), ...found]);
        const groups = groupsOf(state.groups, data);
        const label = (id) => labelOf(id, data, state, groups);
        const open = new Set(state.open.map((place) => drawing.openCell(place)));
        let tokenAxis = 26;
        let layout;
        for (let attempt = 0; attempt < 2; attempt += 1) {
            layout = drawing.layout(data, pruned.n_kept_nodes ? graph.shown() : new Set(), drawing.room(scene, tokenAxis), {
                zoom: state.zoom, open, must, measure: drawing.measure, label,
            });
            const needed = drawing.tokenAxisHeight(data.tokens, layout.angle, drawing.measure);
            if (needed === tokenAxis) break;
            tokenAxis = needed;
        }
        const placeOf = places(layout, data);
        const edges = drawing.chooseEdges(pruned, byNode, { focus, all: state.edges === "all", paths }, (id) => placeOf(id) !== null);
        for (const name of ["rest", "own", "path"]) edges[name] = joined(edges[name], placeOf, data);
        const classes = (id) =>
            [
                [id === state.selected, "selected"], [state.also.includes(id), "also"], [state.pinned.includes(id), "pinned"],
                [found.has(id), "found"], [edges.near.has(id), "near"], [groups.has(id), "grouped"],
            ].filter(([holds]) => holds).map(([, name]) => name).join(" ");
        const nodes = [...layout.marks.values()].map((mark) => {
            const i = data.byId.get(mark.id);
            const given = classes(mark.id);
            mark.ringed = /selected|also|pinned|found|grouped/.test(given);
            return {
                key: mark.id, ...mark, kind: data.nodes.kind[i], title: titleOf(mark.id, data, state), classes: given,
                hue: groups.has(mark.id) ? groups.get(mark.id).index % HUES : null,
            };
        });
        const chips = [...layout.cells.values()].filter((cell) => cell.chip).map((cell) => chipOf(cell, data));
        const isError = (id) => data.nodes.kind[data.byId.get(id)] === "error";
        const logits = new Set([...layout.marks.keys()].filter((id) => data.nodes.kind[data.byId.get(id)] === "logit"));
        const answer = [...logits].slice(0, 1);
        const order = labelOrder(layout, data, state, { focus, answer, found, paths, near: edges.near, own: edges.own, groups });
        const labels = drawing
            .placeLabels(order.slice(0, MAX_LABELS).map((id) => ({ id, text: label(id) || (isError(id) && edges.near.has(id) ? data.nodes.label[data.byId.get(id)] : "") })), layout.marks, chips, layout, drawing.measure, { whole: logits, forced: new Set([...focus, ...answer]) })
            .map((one) => ({ ...one, classes: classes(one.id) }));
        const gone = !pruned.n_kept_nodes;
        const count = (value) => value.toLocaleString("en");
        const of = `of ${count(pruned.n_kept_edges)} edges`;
        const said = gone
            ? "Nothing to draw."
            : focus.size
            ? `Edges of what is selected: ${count(edges.own.length)} ${of}.`
            : state.edges === "all"
              ? `The strongest ${count(edges.rest.length)} ${of}. ${HINT}`
              : `Each node’s strongest input: ${count(edges.rest.length)} ${of}. ${HINT}`;
        return { layout, tokenAxis, focus, edges, nodes, chips, labels, said };
    }

    /* {node id: its group, with its index}; a node of several groups bears the first one. */
    function groupsOf(groups, data) {
        const of = new Map();
        const strength = (id) => data.nodes.influence[data.byId.get(id)] || 0;
        groups.forEach((group, index) => {
            const members = group.nodes.filter((id) => data.byId.has(id) && !of.has(id));
            const strongest = members.reduce((best, id) => (best === null || strength(id) > strength(best) ? id : best), null);
            for (const id of members) of.set(id, { ...group, index, isFirst: id === strongest });
        });
        return of;
    }

    /* What is told of a node: a user's own label first. */
    function titleOf(id, data, state) {
        return [state.labels[id], data.nodes.title[data.byId.get(id)]].filter(Boolean).join(" · ");
    }

    function labelOf(id, data, state, groups) {
        const i = data.byId.get(id);
        const isBare = ["embedding", "error"].includes(data.nodes.kind[i]);
        if (isBare && !state.labels[id] && !groups.has(id)) return "";
        const own = state.labels[id] || data.nodes.label[i] || "";
        const group = groups.get(id);
        if (!group) return own;
        return group.isFirst && group.name ? `${drawing.letter(group.index)} ${group.name.slice(0, 20)}` : `${drawing.letter(group.index)} ${own}`;
    }

    /* The place of a node: its mark, or the chip that it is folded into; null where it has none. */
    function places(layout, data) {
        return (id) => {
            if (layout.marks.has(id)) return layout.marks.get(id);
            const chip = data.byId.has(id) && layout.cells.get(drawing.cellOf(data, data.byId.get(id)))?.chip;
            return chip && layout.cells.get(drawing.cellOf(data, data.byId.get(id))).ids.includes(id) ? { ...chip, r: 8 } : null;
        };
    }

    /* Edges with the places of their ends; of several between the same two places the strongest. */
    function joined(edges, placeOf, data) {
        const title = ({ source, target, weight }) =>
            `${[source, target].map((id) => data.nodes.title[data.byId.get(id)].split(" · influence")[0]).join(" → ")}: weight ${weight.toPrecision(3)}`;
        const found = new Map();
        for (const edge of edges) {
            const [from, to] = [placeOf(edge.source), placeOf(edge.target)];
            const key = [from.id ?? `${from.x},${from.y}`, to.id ?? `${to.x},${to.y}`].join(">");
            const known = found.get(key);
            if (!known || Math.abs(edge.weight) > Math.abs(known.weight)) found.set(key, { ...edge, key, from, to, title: title(edge) });
        }
        return [...found.values()];
    }

    function chipOf(cell, data) {
        const place = cell.row === 0 ? "tokens" : cell.row > data.n_layers ? "logits" : `layer ${cell.row - 1}`;
        const count = cell.folded ? `+${cell.folded}` : "−";
        const title = cell.folded ? `${cell.folded} more nodes: ${place}, “${data.tokens[cell.position]}”; show them` : "fold this stack";
        return { key: `cell ${cell.key}`, cell: cell.key, ...cell.chip, text: count, title };
    }

    /* Ids of the marks, those whose labels matter most first. */
    function labelOrder(layout, data, state, { focus, answer, found, paths, near, own, groups }) {
        const heaviest = [...own].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).flatMap((edge) => [edge.source, edge.target]);
        const strength = (id) => data.nodes.influence[data.byId.get(id)] || 0;
        const kind = (id) => data.nodes.kind[data.byId.get(id)];
        const rest = [...layout.marks.keys()].filter((id) => kind(id) !== "embedding");
        rest.sort((a, b) => (kind(a) === "error") - (kind(b) === "error") || strength(b) - strength(a));
        return [
            ...new Set([
                ...focus, ...answer, ...state.pinned, ...paths.flatMap((path) => path.nodes), ...[...found].slice(0, 100),
                ...[...groups].filter(([, group]) => group.isFirst).map(([id]) => id), ...heaviest,
                ...rest.filter((id) => kind(id) === "logit"), ...rest.filter((id) => near.has(id)), ...rest,
            ]),
        ].filter((id) => layout.marks.has(id));
    }

    /* "layer:position" of the state, with "logits" counted as a layer, to the key of a cell. */
    drawing.openCell = (place) => {
        const [layer, position] = place.split(":").map(Number);
        return `${layer + 1}:${position}`;
    };

    /* The line below the drawing: the node that is pointed at, or how much is drawn. */
    drawing.say = (into, text) => {
        into.said.textContent = text || into.hint || HINT;
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

    Object.assign(window.cltdb.graph, { layout: drawing.layout, draw: drawing.draw });
    window.cltdb.graph.on(drawing.redraw);
})();
