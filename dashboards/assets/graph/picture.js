/* What is drawn of a graph, as plain values: `drawing.still` is what a selection does not change, and is kept while nothing changes that it is
   made of; `drawing.lit` is what a selection changes. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const MAX_LABELS = 900;
    const MAX_FOUND = 100;
    const HUES = 8;
    const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const HINT = "Click a node to read it; Shift and drag to select several.";
    const TOKEN_AXIS = 26; // pixels, with upright labels
    const MADE_OF = ["pinned", "hidden", "groups", "labels", "density", "find", "path", "stored_path", "open", "zoom"];

    drawing.letter = (index) => (index < 26 ? LETTERS[index] : LETTERS[Math.floor(index / 26) - 1] + LETTERS[index % 26]);

    /* The ids in focus: what is selected, then what is selected besides. */
    drawing.focusOf = ({ selected, also }) => new Set([...(selected === null ? [] : [selected]), ...also]);

    /* What a selection does not change: {data, layout, tokenAxis, paths, label, nodes: Map id -> node, chips, logits, answer, spots, placeOf,
       first, rest}. A node: {key, id, kind, x, y, r, room, title, classes, ringed, hue (of its group) | null}. label: id -> text; spots: what
       labels must not cover; placeOf: id -> the place of its mark, or of the chip that it is folded into, else null; first, rest: ids in the
       order in which they get labels. Only where something in focus has no mark of its own is there another layout, in which it has one. */
    drawing.still = (graph, scene) => {
        const focus = [...drawing.focusOf(graph.state)];
        const plain = kept(graph, scene, "plain", []);
        return focus.every((id) => plain.layout.marks.has(id)) ? plain : kept(graph, scene, "forced", focus);
    };

    function kept(graph, scene, name, forced) {
        const parts = [graph.data, graph.pruned, graph.paths, scene.size, forced.join(), ...MADE_OF.map((part) => graph.state[part])];
        const known = scene.kept[name];
        if (known && parts.every((part, i) => part === known.parts[i])) return known;
        return (scene.kept[name] = { parts, ...made(graph, scene, forced) });
    }

    function made(graph, scene, forced) {
        const { data, state } = graph;
        const paths = graph.drawnPaths();
        const found = new Set(graph.matches());
        const groups = groupsOf(state.groups, data);
        const label = (id) => labelOf(id, graph, groups);
        const must = new Set([...forced, ...state.pinned, ...paths.flatMap((path) => path.nodes), ...found]);
        const open = new Set(state.open.map((place) => drawing.openCell(place)));
        const { layout, tokenAxis } = fitted(graph, scene, forced, { zoom: state.zoom, open, must, measure: drawing.measure, label });
        const pinned = new Set(state.pinned);
        const nodes = new Map();
        for (const mark of layout.marks.values()) {
            const { id } = mark;
            const classes = [[pinned, "pinned"], [found, "found"], [groups, "grouped"]].filter(([ids]) => ids.has(id)).map(([, name]) => name);
            nodes.set(id, {
                key: id, ...mark, kind: data.nodes.kind[data.byId.get(id)], title: graph.titleOf(id), classes: classes.join(" "),
                ringed: classes.length > 0, hue: groups.has(id) ? groups.get(id).index % HUES : null,
            });
        }
        const chips = [...layout.cells.values()].filter((cell) => cell.chip).map((cell) => chipOf(cell, data));
        const logits = new Set([...nodes.values()].filter((node) => node.kind === "logit").map((node) => node.id));
        const answer = [...logits].slice(0, 1);
        const heads = [...groups].filter(([, group]) => group.isFirst).map(([id]) => id);
        const spots = drawing.labelSpots(layout.marks.values(), chips);
        const first = [...answer, ...state.pinned, ...paths.flatMap((path) => path.nodes), ...[...found].slice(0, MAX_FOUND), ...heads];
        const rest = byStrength(nodes, data);
        return { data, layout, tokenAxis, paths, label, nodes, chips, logits, answer, spots, placeOf: places(layout), first, rest };
    }

    /* The layout for the room that the token axis and the scroll bars leave, which depend on the layout. */
    function fitted(graph, scene, forced, options) {
        const { data, pruned } = graph;
        const shown = pruned.n_kept_nodes ? graph.shown(forced.length ? undefined : []) : new Set();
        let taken = { tokenAxis: TOKEN_AXIS, right: false, below: false };
        let layout;
        for (let attempt = 0; attempt < 4; attempt += 1) {
            const room = drawing.room(scene, taken);
            layout = drawing.layout(data, shown, room, options);
            const tokenAxis = drawing.tokenAxisHeight(data.tokens, layout.angle, drawing.measure);
            const needed = { tokenAxis, right: taken.right || layout.height > room.height, below: taken.below || layout.width > room.width };
            if (Object.keys(needed).every((name) => needed[name] === taken[name])) break;
            taken = needed;
        }
        return { layout, tokenAxis: taken.tokenAxis };
    }

    /* What the selection changes: {edges: {own, rest, path}, classes: Map id -> the classes of nodes that it marks, focus, labels, said}.
       byNode: of drawing.edgesByNode. */
    drawing.lit = (graph, still, byNode) => {
        const { data, pruned, state } = graph;
        const { paths, placeOf } = still;
        const focus = drawing.focusOf(state);
        const edges = drawing.chooseEdges(pruned, byNode, { focus, all: state.edges === "all", paths }, (id) => placeOf(id) !== null);
        for (const name of ["rest", "own", "path"]) edges[name] = joined(edges[name], placeOf, graph);
        const classes = new Map([...edges.near].map((id) => [id, "near"]));
        for (const id of focus) classes.set(id, id === state.selected ? "selected near" : "also near");
        const text = (id) => still.label(id) || (classes.has(id) && still.nodes.get(id).kind === "error" ? data.nodes.label[data.byId.get(id)] : "");
        const wanted = labelOrder(still, focus, edges).slice(0, MAX_LABELS);
        const labels = drawing.placeLabels(
            wanted.map((id) => ({ id, text: text(id), ringed: still.nodes.get(id).ringed || focus.has(id) })), still, drawing.measure,
            { whole: still.logits, forced: new Set([...focus, ...still.answer]) },
        );
        for (const label of labels) label.classes = drawing.classesOf(still.nodes.get(label.id), classes);
        return { edges, classes, focus, labels, said: said(graph, paths, focus, edges) };
    };

    /* The classes of a node: its own, and those of `lit`, Map id -> classes. */
    drawing.classesOf = (node, lit) => [lit.get(node.id), node.classes].filter(Boolean).join(" ");

    function said({ pruned, state }, paths, focus, edges) {
        const count = (value) => value.toLocaleString("en");
        const of = `of ${count(pruned.n_kept_edges)} edges`;
        if (!pruned.n_kept_nodes) return "Nothing to draw.";
        if (paths.length) return `${count(paths.length)} ${paths.length > 1 ? "paths are" : "path is"} drawn: ${count(edges.path.length)} edges.`;
        if (focus.size) return `Edges of what is selected: ${count(edges.own.length)} ${of}.`;
        if (state.edges === "all") return `The strongest ${count(edges.rest.length)} ${of}. ${HINT}`;
        return `Each node’s strongest input: ${count(edges.rest.length)} ${of}. ${HINT}`;
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

    function labelOf(id, graph, groups) {
        const { data, state } = graph;
        const i = data.byId.get(id);
        const isBare = ["embedding", "error"].includes(data.nodes.kind[i]);
        if (isBare && !state.labels[id] && !groups.has(id)) return "";
        const own = graph.labelOf(id);
        const group = groups.get(id);
        if (!group) return own;
        return group.isFirst && group.name ? `${drawing.letter(group.index)} ${group.name.slice(0, 20)}` : `${drawing.letter(group.index)} ${own}`;
    }

    function places(layout) {
        const known = new Map(layout.marks);
        for (const { chip, ids } of layout.cells.values())
            if (chip) for (const id of ids) if (!known.has(id)) known.set(id, { ...chip, r: 8 });
        return (id) => known.get(id) ?? null;
    }

    /* Edges with the places of their ends; of several between the same two places the strongest. */
    function joined(edges, placeOf, graph) {
        const title = ({ source, target, weight }) =>
            `${[source, target].map((id) => graph.titleOf(id).split(" · influence")[0]).join(" → ")}: weight ${weight.toPrecision(3)}`;
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

    /* Ids of what may have a label without a selection, the most influential first and errors last. */
    function byStrength(nodes, data) {
        const strength = (id) => data.nodes.influence[data.byId.get(id)] || 0;
        const kind = (id) => nodes.get(id).kind;
        const ids = [...nodes.keys()].filter((id) => kind(id) !== "embedding");
        return ids.sort((a, b) => (kind(a) === "error") - (kind(b) === "error") || strength(b) - strength(a));
    }

    /* Ids of the marks, those whose labels matter most first. */
    function labelOrder({ nodes, first, rest, logits }, focus, { near, own }) {
        const heaviest = [...own].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).flatMap((edge) => [edge.source, edge.target]);
        const nearby = near.size ? rest.filter((id) => near.has(id)) : [];
        return [...new Set([...focus, ...first, ...heaviest, ...logits, ...nearby, ...rest])].filter((id) => nodes.has(id));
    }

    /* "layer:position" of the state, with "logits" counted as a layer, to the key of a cell. */
    drawing.openCell = (place) => {
        const [layer, position] = place.split(":").map(Number);
        return `${layer + 1}:${position}`;
    };
})();
