/* The graph of what is pinned and grouped: boxes with names, laid out by layer and position as for a paper. Boxes can be dragged; where they
   were put is stored with the graph. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const svg = (...given) => drawing.svg(...given);
    const MAX_CHARS = 24;
    const HEIGHT = 44;
    const GAP = 22;
    const LEVEL = [96, 170]; // least and most from one level to the next
    const MARGIN = 28;
    const LEAST_SHARE = 0.01; // of edges that are drawn
    const ALONG = [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74]; // where on an edge its number may stand
    const EMPTY = "Nothing is pinned yet. Pin nodes on their cards or with the key p; name several as a group.";
    const placeKey = (box) => box.key.replace(" ", ":");
    let shown = null;

    /* Boxes {key, nodes, name, below, kind, hue, width, x, y}: a level per layer from below, positions from left to right, none over another. */
    drawing.placeBoxes = (boxes, { width, height }, measure) => {
        const sized = boxes.map((box) => ({ ...box, width: Math.max(72, measure(box.name), measure(box.below)) + 28 }));
        const levels = [...new Set(sized.map((box) => Math.round(box.layer * 2) / 2))].sort((a, b) => a - b);
        const positions = [...new Set(sized.map((box) => box.position))].sort((a, b) => a - b);
        const rows = levels.map((level) => sized.filter((box) => Math.round(box.layer * 2) / 2 === level));
        const needed = Math.max(...rows.map((row) => row.reduce((all, box) => all + box.width + GAP, 0)), 0);
        const room = Math.max(width - 2 * MARGIN, needed);
        const step = Math.min(LEVEL[1], Math.max(LEVEL[0], (height - 2 * MARGIN - HEIGHT) / Math.max(1, levels.length - 1)));
        rows.forEach((row, level) => {
            row.sort((a, b) => a.position - b.position || a.key.localeCompare(b.key));
            let free = MARGIN;
            for (const box of row) {
                const share = positions.length > 1 ? positions.indexOf(box.position) / (positions.length - 1) : 0.5;
                box.x = Math.max(free + box.width / 2, MARGIN + share * room - (share - 0.5) * box.width);
                free = box.x + box.width / 2 + GAP;
            }
            let right = MARGIN + room;
            for (const box of [...row].reverse()) {
                box.x = Math.min(box.x, right - box.width / 2);
                right = box.x - box.width / 2 - GAP;
            }
            for (const box of row) box.y = MARGIN + HEIGHT / 2 + (levels.length - 1 - level) * step;
        });
        return { boxes: sized, width: room + 2 * MARGIN, height: 2 * MARGIN + HEIGHT + Math.max(0, levels.length - 1) * step };
    };

    /* What is written on a box, and where it belongs. */
    function described({ key, nodes }, graph) {
        const { data, state } = graph;
        const of = (name, id) => data.nodes[name][data.byId.get(id)];
        const mean = (values) => values.reduce((all, one) => all + one, 0) / values.length;
        const kind = of("kind", nodes[0]);
        const layers = nodes.map((id) => drawing.rowOf(data, data.byId.get(id)) - 1);
        const positions = [...new Set(nodes.map((id) => of("position", id)))].sort((a, b) => a - b);
        const index = state.groups.findIndex((group) => `group ${group.id}` === key);
        const token = (position) => drawing.tokenText(data.tokens[position] || "");
        const where = positions.length > 3 ? `${positions.length} tokens` : positions.map(token).join(", ");
        const cut = (text) => (text.length > MAX_CHARS ? `${text.slice(0, MAX_CHARS - 1)}…` : text);
        const [low, high] = [Math.min(...layers), Math.max(...layers)];
        const at = `${low === high ? `L${low}` : `L${low}–${high}`} · ${where}`;
        const name = index >= 0 ? state.groups[index].name : kind === "embedding" ? token(of("position", nodes[0])) : graph.labelOf(nodes[0]);
        const below = { embedding: "token", logit: "answer" }[index < 0 && kind] || (nodes.length > 1 ? `${nodes.length} nodes · ${at}` : at);
        return {
            key, nodes, name: cut(name || "group"), below: cut(below), kind: index >= 0 ? "group" : kind, hue: index < 0 ? null : index % 8,
            layer: mean(layers), position: mean(nodes.map((id) => of("position", id))),
            title: nodes.map(graph.titleOf).join("\n"),
        };
    }

    drawing.drawSubgraph = (container) => {
        const graph = window.cltdb.graph;
        if (!graph.data) return;
        const { boxes, edges } = graph.subgraph || { boxes: [], edges: [] };
        if (shown?.container !== container || !container.contains(shown.plane)) shown = scene(container);
        const room = { width: shown.scroll.clientWidth - 2, height: shown.scroll.clientHeight - 2 };
        const known = boxes.map((box) => ({ ...box, nodes: box.nodes.filter((id) => graph.data.byId.has(id)) })).filter((box) => box.nodes.length);
        const layout = drawing.placeBoxes(known.map((box) => described(box, graph)), room, drawing.measure);
        for (const box of layout.boxes) {
            const [x, y] = graph.annotations?.places[placeKey(box)] ?? [box.x, box.y];
            Object.assign(box, { x, y });
        }
        Object.assign(shown, { layout, edges: edges.filter((edge) => Math.abs(edge.share) >= LEAST_SHARE) });
        const [width, height] = [Math.max(layout.width, room.width), Math.max(layout.height, room.height)];
        for (const [name, value] of Object.entries({ width, height })) shown.plane.setAttribute(name, value);
        shown.boxes.replaceChildren(...layout.boxes.map((box) => boxElement(box, graph.state)));
        showEdges();
        shown.said.textContent = layout.boxes.length
            ? `${shown.edges.length} edges between ${layout.boxes.length} boxes; numbers are shares of what enters a box from outside. Drag boxes to move them.`
            : EMPTY;
    };

    function scene(container) {
        const [wires, boxes, texts] = ["wires", "boxes", "texts"].map((name) => svg("g", { class: name }));
        const plane = svg("svg", { class: "plane subgraph", role: "group", "aria-label": "What is pinned and grouped" }, [wires, boxes, texts]);
        const scroll = Object.assign(document.createElement("div"), { className: "drawing-scroll" });
        const said = Object.assign(document.createElement("p"), { className: "drawing-said quiet" });
        scroll.append(plane);
        container.classList.add("drawing");
        drawing.fitIntoWindow(container);
        container.replaceChildren(scroll, said);
        let held = null;
        plane.addEventListener("pointerdown", (event) => {
            const key = event.target.closest("[data-box]")?.dataset.box;
            const box = key && shown.layout.boxes.find((one) => one.key === key);
            if (box) held = { box, dx: box.x - event.clientX, dy: box.y - event.clientY, moved: false };
        });
        plane.addEventListener("pointermove", (event) => {
            if (!held) return;
            const [x, y] = [event.clientX + held.dx, event.clientY + held.dy];
            if (!held.moved && Math.hypot(x - held.box.x, y - held.box.y) < 4) return;
            if (!held.moved) plane.setPointerCapture(event.pointerId);
            held.moved = true;
            Object.assign(held.box, { x, y });
            boxes.querySelector(`[data-box="${CSS.escape(held.box.key)}"]`).setAttribute("transform", `translate(${x} ${y})`);
            showEdges();
        });
        plane.addEventListener("pointerup", () => {
            if (held?.moved) window.cltdb.graph.operate({ op: "place", places: { [placeKey(held.box)]: [held.box.x, held.box.y].map(Math.round) } });
            setTimeout(() => (held = null));
        });
        plane.addEventListener("click", (event) => {
            event.stopPropagation();
            if (!held?.moved) choose(event);
        });
        plane.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && choose(event));
        new ResizeObserver(() => window.cltdb.graph.state.view === "subgraph" && drawing.redraw()).observe(scroll);
        return { container, scroll, said, plane, wires, boxes, texts };
    }

    function choose(event) {
        const box = event.target.closest("[data-box]");
        const nodes = box && shown.layout.boxes.find((one) => one.key === box.dataset.box).nodes;
        if (nodes) window.cltdb.graph.set({ selected: nodes[0], also: nodes.slice(1) });
        else window.cltdb.graph.select(null);
    }

    function boxElement(box, state) {
        const [w, h] = [box.width, HEIGHT];
        const isSelected = box.nodes.includes(state.selected);
        const name = svg("text", { class: "box-name", "text-anchor": "middle", y: -2 });
        name.textContent = box.name;
        const below = svg("text", { class: "box-below", "text-anchor": "middle", y: 14 });
        below.textContent = box.below;
        const shape = svg("rect", { x: -w / 2, y: -h / 2, width: w, height: h, rx: box.kind === "embedding" ? 3 : 10 });
        const group = svg("g", {
            class: `box ${box.kind}${isSelected ? " selected" : ""}`, transform: `translate(${box.x} ${box.y})`, "data-box": box.key,
            role: "button", tabindex: 0, "aria-label": `${box.name}, ${box.below}`, "aria-pressed": String(isSelected),
        }, [shape, name, below]);
        if (box.hue !== null) group.style.setProperty("--group", `var(--group-${box.hue})`);
        return group;
    }

    function showEdges() {
        const byKey = new Map(shown.layout.boxes.map((box) => [box.key, { ...box, r: HEIGHT / 2 + 1 }]));
        const edges = shown.edges
            .filter((edge) => byKey.has(edge.source) && byKey.has(edge.target))
            .map((edge) => ({ ...edge, key: `${edge.source}>${edge.target}`, from: byKey.get(edge.source), to: byKey.get(edge.target) }));
        drawing.showEdges(shown.wires, edges.map((edge) => ({ ...edge, weight: edge.share })), 7);
        shown.texts.replaceChildren(...numbers(edges));
    }

    /* The shares of edges as texts on their lines, the largest first, as far as they cover neither a box nor each other. */
    function numbers(edges) {
        const taken = shown.layout.boxes.map((box) => ({ x: box.x, y: box.y, width: box.width + 4, height: HEIGHT + 4 }));
        const isFree = (one) =>
            taken.every((other) => 2 * Math.abs(one.x - other.x) >= one.width + other.width || 2 * Math.abs(one.y - other.y) >= one.height + other.height);
        return [...edges]
            .sort((a, b) => Math.abs(b.share) - Math.abs(a.share))
            .flatMap((edge) => {
                const percent = Math.abs(100 * edge.share);
                const said = `${edge.share < 0 ? "−" : ""}${percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
                const { at } = drawing.edgeLine(edge.from, edge.to, 1);
                const size = { width: drawing.measure(said) + 4, height: 14 };
                const spot = ALONG.map((t) => ({ ...at(t), ...size })).find(isFree);
                if (!spot) return [];
                taken.push(spot);
                const text = svg("text", { class: "share", "text-anchor": "middle", dy: "0.34em", x: spot.x, y: spot.y });
                text.textContent = said;
                return [text];
            });
    }
})();
