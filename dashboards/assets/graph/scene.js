/* The elements of a drawing: axes that stay in view, and a plane with columns, edges, marks and labels. Each call brings what is there up to
   date: elements stay the same as long as what they show does. Strings become text nodes. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const SVG = "http://www.w3.org/2000/svg";
    const LAYER_AXIS = 52;
    const BORDER = 1;
    const HIT = 10;
    const LOWEST = 520;
    const BELOW = 36; // pixels of the window that it leaves

    drawing.svg = (tag, attributes = {}, children = []) => {
        const element = document.createElementNS(SVG, tag);
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        element.append(...children);
        return element;
    };

    const html = (tag, className, attributes = {}) => {
        const element = Object.assign(document.createElement(tag), { className });
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        return element;
    };

    /* Elements of a new, empty drawing in `container`, by name. */
    drawing.scene = (container) => {
        const { svg } = drawing;
        const layer = Object.fromEntries(
            ["bands", "rest", "own", "path", "nodes", "labels", "lasso"].map((name) => [name, svg("g", { class: name })]),
        );
        for (const name of ["bands", "rest", "own", "path", "labels", "lasso"]) layer[name].setAttribute("aria-hidden", "true");
        const parts = {
            plane: svg("svg", { class: "plane", role: "group", "aria-label": "Attribution graph" }, Object.values(layer)),
            layers: svg("svg", { class: "layer-axis", "aria-hidden": "true" }),
            tokens: svg("svg", { class: "token-axis", "aria-hidden": "true" }),
            corner: html("div", "corner"),
            scroll: html("div", "drawing-scroll"),
            said: html("p", "drawing-said quiet"),
            tip: html("div", "drawing-tip", { role: "tooltip", hidden: "" }),
            live: html("p", "unseen", { "aria-live": "polite" }),
        };
        parts.scroll.append(parts.layers, parts.plane, parts.corner, parts.tokens);
        container.classList.add("drawing");
        drawing.fitIntoWindow(container);
        container.replaceChildren(parts.scroll, parts.said, parts.tip, parts.live);
        parts.scroll.style.overflow = "scroll";
        const bar = parts.scroll.offsetWidth - parts.scroll.clientWidth - 2 * BORDER;
        parts.scroll.style.overflow = "";
        return { container, ...parts, layer, bar, size: drawing.sizeOf(parts.scroll), kept: {} };
    };

    drawing.sizeOf = ({ offsetWidth: width, offsetHeight: height }) => ({ width, height });

    /* As high as the window leaves room for below what stands above the drawing. */
    drawing.fitIntoWindow = (container) => {
        const top = container.getBoundingClientRect().top + window.scrollY;
        container.style.height = `${Math.max(LOWEST, window.innerHeight - top - BELOW)}px`;
    };

    /* Pixels that there are for the plane, beside axes and those scroll bars that are needed: to the right, below. */
    drawing.room = ({ size, bar }, { tokenAxis, right, below }) => ({
        width: Math.max(120, size.width - 2 * BORDER - LAYER_AXIS - (right ? bar : 0)),
        height: Math.max(120, size.height - 2 * BORDER - tokenAxis - (below ? bar : 0)),
    });

    /* Keeps one child of `parent` per item: item.key names it, make(item) makes it, update(child, item) brings it up to date. */
    function join(parent, items, make, update) {
        const before = parent.children_ || new Map();
        const after = new Map();
        for (const item of items) {
            let child = before.get(item.key);
            if (child) before.delete(item.key);
            else parent.append((child = make(item)));
            update(child, item);
            after.set(item.key, child);
        }
        for (const child of before.values()) child.remove();
        parent.children_ = after;
    }

    function set(element, attributes) {
        const known = (element.known_ = element.known_ || {});
        for (const [name, value] of Object.entries(attributes))
            if (known[name] !== value) {
                known[name] = value;
                if (name === "text") element.textContent = value;
                else if (value === null) element.removeAttribute(name);
                else element.setAttribute(name, value);
            }
    }

    const textElement = () => drawing.svg("text");
    const round = (value) => Math.round(value * 10) / 10;

    /* Pixels that the token axis needs below the plane. */
    drawing.tokenAxisHeight = (tokens, angle, measure) => {
        if (angle === 0) return 26;
        const longest = Math.max(0, ...tokens.map((token) => measure(drawing.tokenText(token))));
        return Math.ceil(14 + (angle === 90 ? longest : longest * Math.sin((angle * Math.PI) / 180) + 8));
    };

    drawing.showAxes = (scene, layout, data, tokenAxis) => {
        const { columns, rows, angle } = layout;
        const { width, height } = layout;
        set(scene.plane, { width, height });
        set(scene.layers, { width: LAYER_AXIS, height });
        set(scene.tokens, { width, height: tokenAxis });
        join(
            scene.layers,
            rows.map((row, key) => ({ key, row })),
            textElement,
            (text, { key, row }) =>
                set(text, {
                    x: LAYER_AXIS - 8,
                    dy: "0.34em",
                    y: round(row.middle),
                    text: key === 0 ? "tokens" : key === rows.length - 1 ? "logits" : `L${key - 1}`,
                }),
        );
        join(
            scene.tokens,
            columns.map((column, key) => ({ key, column, token: drawing.tokenText(data.tokens[key] || "") })),
            textElement,
            (text, { column, token, key }) => {
                const x = drawing.spine(column);
                const place = angle
                    ? { "text-anchor": "end", transform: `translate(${round(x)} 8) rotate(${-angle})` }
                    : drawing.spine(column) < column.middle
                      ? { "text-anchor": "start", transform: `translate(${round(column.start + 5)} 16)` }
                      : { "text-anchor": "middle", transform: `translate(${round(x)} 16)` };
                set(text, { text: token, "data-token": key, dy: angle ? "0.32em" : "0", ...place });
            },
        );
        join(
            scene.layer.bands,
            [
                ...columns.map((column, i) => ({ key: `c${i}`, class: i % 2 ? "band odd" : "band", x: column.start, width: column.size, y: 0, height })),
                ...rows.slice(1).map((row, i) => ({ key: `r${i}`, class: "line", x: 0, y: row.start + row.size, width, height: 1 })),
            ],
            () => drawing.svg("rect"),
            (rect, item) =>
                set(rect, { class: item.class, x: round(item.x), y: round(item.y), width: round(item.width), height: round(item.height) }),
        );
    };

    /* edges: [{key, weight, title, from, to}], `from` and `to` the places of their ends; thickest: pixels of the largest weight; hasHeads:
       whether they end in arrows. */
    drawing.showEdges = (parent, edges, thickest, hasHeads = true) => {
        const largest = Math.max(0, ...edges.map((edge) => Math.abs(edge.weight)));
        join(
            parent,
            edges,
            () => drawing.svg("g", {}, (hasHeads ? ["wire", "reach", "tip"] : ["wire"]).map((name) => drawing.svg("path", { class: name }))),
            (group, edge) => {
                const width = drawing.edgeWidth(edge.weight, largest, thickest);
                const { path, tip } = drawing.edgeLine(edge.from, edge.to, width, hasHeads);
                set(group, { class: edge.weight < 0 ? "edge suppresses" : "edge promotes", "data-title": edge.title });
                const [wire, reach, head] = group.children;
                set(wire, { d: path, "stroke-width": round(width) });
                if (!hasHeads) return;
                set(reach, { d: path });
                set(head, { d: tip });
            },
        );
    };

    drawing.outline = (kind, r) => {
        const p = (value) => round(value);
        if (kind === "error") return `M0 ${p(-1.15 * r)}L${p(1.15 * r)} 0 0 ${p(1.15 * r)} ${p(-1.15 * r)} 0z`;
        if (kind === "logit") {
            const [half, high] = [p(0.6 * r), p(1.05 * r)];
            return `M${p(-1.2 * r)} 0L${-half} ${-high}H${half}L${p(1.2 * r)} 0 ${half} ${high}H${-half}z`;
        }
        if (kind === "embedding") {
            const [s, c] = [p(0.95 * r), p(0.3 * r)];
            const e = p(2 * (s - c));
            return `M${-s + c} ${-s}h${e}q${c} 0 ${c} ${c}v${e}q0 ${c} ${-c} ${c}h${-e}q${-c} 0 ${-c} ${-c}v${-e}q0 ${-c} ${c} ${-c}z`;
        }
        return `M${p(-r)} 0a${p(r)} ${p(r)} 0 1 0 ${p(2 * r)} 0a${p(r)} ${p(r)} 0 1 0 ${p(-2 * r)} 0z`;
    };

    /* nodes: [{key, id, kind, x, y, r, classes, title, hue (of its group) | null}], chips: [{key, cell, x, y, text, title}]. */
    drawing.showNodes = (scene, nodes, chips) => {
        join(
            scene.layer.nodes,
            [...chips, ...nodes],
            (item) =>
                item.text
                    ? drawing.svg("g", { class: "chip", role: "button", tabindex: -1 }, [
                          drawing.svg("rect", { y: -7.5, height: 15, rx: 5 }),
                          drawing.svg("text", { "text-anchor": "middle", dy: "0.34em" }),
                      ])
                    : drawing.svg("g", { role: "button", tabindex: -1 }, [
                          drawing.svg("circle", { class: "hit" }),
                          drawing.svg("path", { class: "ring" }),
                          drawing.svg("path", { class: "mark" }),
                      ]),
            (group, item) => {
                set(group, { transform: `translate(${round(item.x)} ${round(item.y)})`, "aria-label": item.title });
                if (item.text) showChip(group, item);
                else showNode(group, item);
            },
        );
    };

    /* Brings some of the nodes that are drawn up to date, where they stand. */
    drawing.touchNodes = (scene, nodes) => {
        for (const node of nodes) showNode(scene.layer.nodes.children_.get(node.key), node);
    };

    function showChip(group, { cell, text }) {
        const width = Math.max(16, 4 + 6.4 * text.length);
        set(group, { "data-cell": cell });
        set(group.firstChild, { x: -width / 2, width });
        set(group.lastChild, { text });
    }

    function showNode(group, { id, kind, r, classes, ringed, hue }) {
        const [hit, ring, mark] = group.children;
        set(group, {
            class: `node ${kind} ${classes}`,
            "data-node": id,
            "aria-pressed": String(classes.includes("selected")),
            style: hue === null ? null : `--group: var(--group-${hue})`,
        });
        set(hit, { r: Math.max(HIT, round(r + 2)) });
        set(ring, { d: ringed ? drawing.outline(kind, r + 3) : null });
        set(mark, { d: drawing.outline(kind, r) });
    }

    /* labels: of drawing.placeLabels, with classes. */
    drawing.showLabels = (scene, labels) =>
        join(
            scene.layer.labels,
            labels.map((label) => ({ key: label.id, ...label })),
            textElement,
            (text, { key, x, y, anchor, text: string, classes }) =>
                set(text, {
                    class: `label ${classes}`,
                    x: round(x),
                    y: round(y),
                    dy: "0.34em",
                    "text-anchor": anchor,
                    "data-label": key,
                    text: string,
                }),
        );
})();
