/* Which edges are drawn, and their lines. Pure. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const MAX_ALL = 3000;
    const MAX_SPINE = 160;
    const MAX_NEAR = 40;
    const ASIDE = 34; // pixels that an edge between marks above each other runs beside them, at most
    const THINNEST = 0.8;
    const THICKEST = 5;
    const HEAD = 5;

    /* The edges of each node of a store graph-pruned: Map id -> [index]. */
    drawing.edgesByNode = (pruned) => {
        const byNode = new Map();
        const { source, target } = pruned.edges;
        for (let i = 0; i < source.length; i += 1)
            for (const id of [source[i], target[i]]) {
                if (!byNode.has(id)) byNode.set(id, []);
                byNode.get(id).push(i);
            }
        return byNode;
    };

    /* {own: edges of the nodes in focus, rest: edges drawn behind them, path: edges of the path, near: Set of the neighbours' ids}.
       An edge: {source, target, weight, influence}. isDrawn: id -> whether the node has a place. */
    drawing.chooseEdges = (pruned, byNode, { focus, all, paths }, isDrawn) => {
        const { source, target, weight, influence } = pruned.edges;
        const edge = (i) => ({ source: source[i], target: target[i], weight: weight[i], influence: influence[i] });
        const there = (i) => isDrawn(source[i]) && isDrawn(target[i]);
        const strongest = (indices, n) => indices.sort((a, b) => influence[b] - influence[a]).slice(0, n);
        const every = () => [...source.keys()].filter(there);
        const owned = new Set([...focus].flatMap((id) => byNode.get(id) || []).filter(there));
        const near = new Set(focus);
        for (const i of owned) near.add(source[i]).add(target[i]);
        const strongestInputs = (indices) => {
            const into = new Map();
            for (const i of indices) if (!into.has(target[i]) || Math.abs(weight[i]) > Math.abs(weight[into.get(target[i])])) into.set(target[i], i);
            return [...into.values()];
        };
        let rest = [];
        if (all) rest = strongest(every(), MAX_ALL);
        else if (!focus.size && !paths.length) rest = strongest(strongestInputs(every()), MAX_SPINE);
        else if (focus.size) {
            const around = [...near].flatMap((id) => byNode.get(id) || []);
            rest = strongest([...new Set(around)].filter((i) => near.has(source[i]) && near.has(target[i]) && there(i)), MAX_NEAR);
        }
        const path = paths.flatMap(({ nodes, weights }) =>
            weights.map((value, i) => ({ source: nodes[i], target: nodes[i + 1], weight: value, influence: null })),
        );
        return {
            own: [...owned].map(edge),
            rest: rest.filter((i) => !owned.has(i)).map(edge),
            path: path.filter((one) => isDrawn(one.source) && isDrawn(one.target)),
            near,
        };
    };

    /* Pixels, by absolute weight; `largest`: that of the thickest edge. */
    drawing.edgeWidth = (weight, largest, thickest = THICKEST) =>
        THINNEST + (thickest - THINNEST) * (largest > 0 ? Math.abs(weight) / largest : 0);

    /* The line of an edge upwards from one place to another, {x, y, r}, which ends where its head begins, and the head. */
    drawing.edgeLine = (from, to, width, hasHead = true) => {
        const head = HEAD + 1.2 * width;
        const [x1, y1, x2, y2] = [from.x, from.y - from.r, to.x, to.y + to.r + 1];
        const bend = Math.max(10, Math.abs(y1 - y2) * 0.45);
        const near = hasHead ? 0.9 * head : 0; // the line ends within its head
        const aside = Math.abs(x1 - x2) < 8 ? Math.min(ASIDE, 6 + 0.12 * Math.abs(y1 - y2)) : 0;
        const [c1, c2] = [x1 - aside, x2 - aside];
        const path = `M${one(x1)} ${one(y1)}C${one(c1)} ${one(y1 - bend)} ${one(c2)} ${one(y2 + near + bend)} ${one(x2)} ${one(y2 + near)}`;
        const tip = `M${one(x2)} ${one(y2)}l${one(-head / 2)} ${one(head)}h${one(head)}z`;
        /* The place at a share of the way, 0 to 1. */
        const at = (t) => {
            const [a, b, c, d] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3];
            return { x: a * x1 + b * c1 + c * c2 + d * x2, y: a * y1 + b * (y1 - bend) + c * (y2 + near + bend) + d * (y2 + near) };
        };
        return { path, tip, at };
    };

    const one = (value) => Math.round(value * 10) / 10;
})();
