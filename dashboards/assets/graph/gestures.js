/* What pointer, wheel and keys do in the drawing. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const STEP = 1.2;
    const MOST = 24;
    const NOTCH = 60; // of the wheel; what a touch pad sends adds up to it
    const MOVED = 4; // pixels from which on a press is a drag

    const graph = () => window.cltdb.graph;
    const nodeAt = (element) => {
        const node = element.closest?.("[data-node]");
        return node ? Number(node.dataset.node) : null;
    };

    drawing.listen = (scene) => {
        const { scroll, plane } = scene;
        let press = null;
        let turned = 0;

        scroll.addEventListener(
            "wheel",
            (event) => {
                if (!event.ctrlKey && !event.metaKey) return;
                event.preventDefault();
                turned += event.deltaY;
                if (Math.abs(turned) < NOTCH) return;
                drawing.zoom(scene, turned < 0 ? STEP : 1 / STEP, event);
                turned = 0;
            },
            { passive: false },
        );
        scroll.addEventListener("pointerdown", (event) => {
            if (event.button !== 0 || event.pointerType === "touch") return;
            press = { x: event.clientX, y: event.clientY, left: scroll.scrollLeft, top: scroll.scrollTop, box: event.shiftKey, drags: false };
        });
        scroll.addEventListener("pointermove", (event) => {
            if (!press) return point(scene, event);
            const [dx, dy] = [event.clientX - press.x, event.clientY - press.y];
            if (!press.drags && Math.hypot(dx, dy) > MOVED) {
                press.drags = true;
                scroll.setPointerCapture(event.pointerId);
            }
            if (!press.drags) return;
            if (press.box) showBox(scene, press, event);
            else scroll.scrollTo(press.left - dx, press.top - dy);
        });
        scroll.addEventListener("pointerup", (event) => {
            if (press?.drags && press.box) selectBox(scene, press, event);
            if (press) setTimeout(() => (press = null)); // after the click
        });
        scroll.addEventListener("pointercancel", () => (press = null));
        scroll.addEventListener("pointerleave", () => unpoint(scene));
        plane.addEventListener("click", (event) => {
            event.stopPropagation();
            if (press?.drags) return;
            const chip = event.target.closest("[data-cell]");
            const id = nodeAt(event.target);
            if (chip) toggleCell(chip.dataset.cell);
            else if (id === null) graph().select(null);
            else if (event.shiftKey || event.ctrlKey || event.metaKey) toggleAlso(id);
            else graph().select(id);
        });
        plane.addEventListener("keydown", (event) => onKey(scene, event));
        plane.addEventListener("focusin", (event) => {
            const at = event.target.closest("[data-node], [data-cell]");
            if (!at) return;
            walkTo(scene, at);
            drawing.say(scene, at.getAttribute("aria-label"));
        });
        plane.addEventListener("focusout", () => drawing.say(scene, null));
        /* Scroll bars do not change the size of the box with its border: a drawing that needs some is not drawn for ever. */
        const resized = () => {
            const size = drawing.sizeOf(scroll);
            if (size.width === scene.size.width && size.height === scene.size.height) return;
            scene.size = size;
            drawing.redraw();
        };
        new ResizeObserver(resized).observe(scroll, { box: "border-box" });
    };

    /* Pointing at a node or an edge of the selection: its title beside the pointer and in the line below. */
    function point(scene, event) {
        const at = event.target.closest?.("[data-node], [data-cell], .edge[data-title]");
        if (!at) return unpoint(scene);
        const title = at.getAttribute("aria-label") || at.dataset.title;
        if (scene.tip.hidden || scene.tip.textContent !== title) {
            scene.tip.textContent = title;
            scene.tip.hidden = false;
            drawing.say(scene, title);
        }
        const box = scene.container.getBoundingClientRect();
        const [x, y] = [event.clientX - box.left, event.clientY - box.top];
        const { offsetWidth: width, offsetHeight: height } = scene.tip;
        scene.tip.style.left = `${Math.max(4, Math.min(x + 14, box.width - width - 4))}px`;
        scene.tip.style.top = `${y + 20 + height < box.height ? y + 20 : Math.max(4, y - height - 12)}px`;
    }

    function unpoint(scene) {
        if (scene.tip.hidden) return;
        scene.tip.hidden = true;
        drawing.say(scene, null);
    }

    function boxOf(scene, press, event) {
        const plane = scene.plane.getBoundingClientRect();
        const [x1, x2] = [press.x, event.clientX].map((x) => x - plane.left).sort((a, b) => a - b);
        const [y1, y2] = [press.y, event.clientY].map((y) => y - plane.top).sort((a, b) => a - b);
        return { x1, y1, x2, y2 };
    }

    function showBox(scene, press, event) {
        const { x1, y1, x2, y2 } = boxOf(scene, press, event);
        const box = scene.layer.lasso.firstChild || scene.layer.lasso.appendChild(drawing.svg("rect"));
        for (const [name, value] of Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 })) box.setAttribute(name, value);
    }

    function selectBox(scene, press, event) {
        const { x1, y1, x2, y2 } = boxOf(scene, press, event);
        scene.layer.lasso.replaceChildren();
        const inside = [...scene.still.nodes.values()].filter(({ x, y }) => x1 <= x && x <= x2 && y1 <= y && y <= y2);
        select(inside.map((node) => node.id));
    }

    function select(ids) {
        const selected = graph().state.selected ?? ids[0] ?? null;
        graph().set({ selected, also: ids.filter((id) => id !== selected) });
    }

    function toggleAlso(id) {
        const { selected, also } = graph().state;
        if (selected === null) graph().select(id);
        else if (id === selected) graph().set({ selected: also[0] ?? null, also: also.slice(1) });
        else graph().set({ also: also.includes(id) ? also.filter((one) => one !== id) : [...also, id] });
    }

    function toggleCell(key) {
        const [row, position] = key.split(":").map(Number);
        const place = `${row - 1}:${position}`;
        const { open } = graph().state;
        graph().set({ open: open.includes(place) ? open.filter((one) => one !== place) : [...open, place] });
    }

    /* Zooms by a factor, 0 to fit. */
    drawing.zoom = (scene, factor, pointer = null) => {
        scene.pointer = pointer;
        graph().set({ zoom: factor ? Math.min(MOST, Math.max(1, Math.round(graph().state.zoom * factor * 1000) / 1000)) : 1 });
    };

    /* Between two layouts: what is under the pointer, or in the middle, stays where it is. The first view of a graph shows the answer. */
    drawing.keepPlace = (scene, before) => {
        const { scroll, plane, pointer } = scene;
        const { layout } = scene.still;
        scene.pointer = null;
        if (!before) return scroll.scrollTo(scroll.scrollWidth, 0);
        const view = scroll.getBoundingClientRect();
        const box = plane.getBoundingClientRect();
        const [x, y] = pointer ? [pointer.clientX, pointer.clientY] : [view.left + view.width / 2, view.top + view.height / 2];
        const moved = (lanes, now, place) => {
            const i = lanes.findIndex((lane) => lane.start <= place && place < lane.start + lane.size);
            return i < 0 || i >= now.length ? 0 : now[i].start + ((place - lanes[i].start) / lanes[i].size) * now[i].size - place;
        };
        const [right, down] = [moved(before.columns, layout.columns, x - box.left), moved(before.rows, layout.rows, y - box.top)];
        if (Math.abs(right) >= 1) scroll.scrollLeft += right;
        if (Math.abs(down) >= 1) scroll.scrollTop += down;
    };

    function onKey(scene, event) {
        const at = event.target.closest("[data-node], [data-cell]");
        if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
        const id = nodeAt(at);
        const { state } = graph();
        const several = id !== null && state.also.includes(id) ? [state.selected, ...state.also].filter((one) => one !== null) : [id];
        const actions = {
            Enter: () => (id === null ? toggleCell(at.dataset.cell) : event.shiftKey ? toggleAlso(id) : graph().select(id)),
            Escape: () => graph().select(null),
            p: () => id !== null && graph().pin(several, !state.pinned.includes(id)),
            h: () => id !== null && graph().hide(several),
            g: () => graph().group?.([...new Set([...(state.selected === null ? [] : [state.selected]), ...state.also, ...several])].filter((one) => one !== null)),
            "+": () => drawing.zoom(scene, STEP),
            "-": () => drawing.zoom(scene, 1 / STEP),
            0: () => drawing.zoom(scene, 0),
        };
        actions[" "] = actions.Enter;
        const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
        if (dx || dy) walkTo(scene, nextTo(scene, at, dx, dy) || at, { focus: true });
        else if (actions[event.key]) actions[event.key]();
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    const placeOf = (element) => {
        const [x, y] = element.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
        return { x, y };
    };

    /* The mark or chip nearest to another in a direction; what lies off that line counts threefold. */
    function nextTo(scene, at, dx, dy) {
        const from = placeOf(at);
        let best = null;
        for (const one of scene.layer.nodes.children) {
            const { x, y } = placeOf(one);
            const along = (x - from.x) * dx + (y - from.y) * dy;
            const aside = Math.abs((x - from.x) * dy) + Math.abs((y - from.y) * dx);
            const far = along + 3 * aside;
            if (along > 1 && (!best || far < best.far)) best = { one, far };
        }
        return best?.one;
    }

    /* One mark can be reached by Tab: the one that had the focus last, the selected one, or the first. */
    function walkTo(scene, at, { focus = false } = {}) {
        if (scene.walking !== at) {
            scene.walking?.setAttribute("tabindex", -1);
            at.setAttribute("tabindex", 0);
            scene.walking = at;
        }
        if (!focus) return;
        at.focus({ preventScroll: true });
        bringIntoView(scene, at);
    }

    drawing.keepWalking = (scene) => {
        const { nodes } = scene.layer;
        const { selected } = graph().state;
        const chosen = selected === null ? null : nodes.querySelector(`[data-node="${selected}"]`);
        if (scene.selected !== selected) {
            scene.selected = selected;
            scene.live.textContent = chosen ? `selected: ${chosen.getAttribute("aria-label")}` : "nothing selected";
            if (chosen) {
                walkTo(scene, chosen);
                bringIntoView(scene, chosen);
            }
        }
        if (scene.walking?.isConnected) return;
        const first = chosen || nodes.querySelector(".logit") || nodes.firstChild;
        scene.walking = null;
        if (first) walkTo(scene, first);
    };

    /* Scrolls the drawing, as little as needed, and not the page. */
    function bringIntoView({ scroll, plane, layers, tokens }, at) {
        const { x, y } = placeOf(at);
        const [left, top] = [plane.getBoundingClientRect().left, plane.getBoundingClientRect().top];
        const view = scroll.getBoundingClientRect();
        const margin = 48;
        const over = (place, low, high) => Math.min(0, place - low - margin) + Math.max(0, place - high + margin);
        scroll.scrollLeft += over(left + x, view.left + layers.clientWidth, view.left + scroll.clientWidth);
        scroll.scrollTop += over(top + y, view.top, view.top + scroll.clientHeight - tokens.clientHeight);
    }
})();
