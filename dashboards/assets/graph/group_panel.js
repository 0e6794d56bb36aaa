/* The panel "Groups": what is pinned, hidden and grouped, with all that can be done to it. Built anew when that changes, but not under the hands
   of somebody who writes in it. */

(() => {
    const { element } = window.cltdb;
    const graph = window.cltdb.graph;
    const HUES = 8;
    const MOST = 200;
    const SAYS = {
        saved: () => "Saved.",
        saving: () => "Saving …",
        unsaved: (said) => `Not saved yet: ${said}. It is kept here and tried again.`,
        refused: (said) => `Not saved: ${said}.`,
        readonly: () => "These pages show another database and save nothing: what you change stays in this page, pins also in its address.",
    };
    let drawn = null;

    const button = (text, act, more = {}) => element("button", { type: "button", class: "button quiet", onclick: act, ...more }, text);
    const small = (text, name, act) => element("button", { type: "button", class: "link", "aria-label": name, title: name, onclick: act }, text);
    const bdi = (text) => element("bdi", {}, text);

    graph.on((changed) => {
        if (["data", "annotations", "pruned", "pinned", "hidden", "groups", "labels", "notes", "selected", "also", "tab"].some((name) => changed.has(name))) show();
    });
    document.addEventListener("focusout", (event) => event.target.closest?.("#graph-groups") && setTimeout(show));

    function show() {
        const panel = document.getElementById("graph-groups");
        if (!panel || !graph.data || !graph.annotations) return;
        const status = panel.querySelector(".saving") || element("p", { class: "saving quiet", role: "status" });
        const { status: name, said } = graph.saving();
        const text = SAYS[name](said);
        if (status.textContent !== text) status.textContent = text;
        const { pinned, hidden, groups, labels, notes } = graph.state;
        const now = JSON.stringify([
            graph.data.graph_id, pinned, hidden, groups, labels, notes, graph.selection(), graph.annotations.proposals, graph.canUndo(), name === "readonly",
            graph.state.node_share, graph.state.edge_share, graph.pruned?.n_kept_nodes,
        ]);
        if (panel.drawnOf === now && panel.children.length) return;
        const active = panel.contains(document.activeElement) ? document.activeElement : null;
        if (active?.matches("select") || (active?.matches("input, textarea") && active.value !== active.defaultValue)) return;
        panel.drawnOf = now;
        const focused = active?.getAttribute("aria-label");
        const whole = active?.matches("input") && active.selectionEnd > active.selectionStart;
        const opened = new Set([...panel.querySelectorAll("details[open]")].map((one) => one.dataset.of));
        panel.replaceChildren(status, tools(), ...groupList(groups), ...nodeLists(pinned, hidden), ...proposals(), noteField("graph", "Note on this graph"), changes());
        for (const one of panel.querySelectorAll("details")) one.open = opened.has(one.dataset.of);
        const again = focused ? panel.querySelector(`[aria-label="${CSS.escape(focused)}"]`) : null;
        again?.focus({ preventScroll: true });
        if (whole) again?.select?.();
        nameNew(panel);
    }

    /* A group that was just made: its name is there to be written over. */
    function nameNew(panel) {
        const field = graph.named && panel.querySelector(`[data-group="${graph.named}"] input`);
        if (!field) return;
        graph.named = null;
        field.focus();
        field.select();
    }

    function tools() {
        const chosen = graph.selection();
        const { node_share, edge_share, selected } = graph.state;
        const fields = { graph_id: graph.data.graph_id, node: node_share, edge: edge_share, ...(selected === null ? {} : { selected }) };
        const disabled = (when) => (when ? { disabled: true } : {});
        return element(
            "p", { class: "actions" },
            button(`Group the selection (${chosen.length})`, () => graph.group(), { "data-do": "group", ...disabled(!chosen.length) }),
            button("Undo", () => graph.undo(), { "data-do": "undo", ...disabled(!graph.canUndo()) }),
            element("a", { class: "button quiet", "data-do": "export", href: window.cltdb.address("graph.json", fields), download: "" }, "Export graph JSON"),
            cutNote(),
        );
    }

    /* The file has what pruning keeps; the page also shows what is pinned besides. */
    function cutNote() {
        const kept = new Set(graph.pruned?.kept ?? []);
        const n = new Set([...graph.state.pinned, ...graph.state.groups.flatMap((group) => group.nodes)].filter((id) => !kept.has(id))).size;
        return n ? element("span", { class: "quiet" }, `${n} of what is pinned or grouped is cut by pruning and not in the file`) : null;
    }

    function groupList(groups) {
        if (!groups.length) return [element("p", { class: "quiet" }, "No groups yet. Select nodes (Shift and drag, or Ctrl and click) and group them, or press g.")];
        return [element("h3", {}, `Groups (${groups.length})`), ...groups.map((group, index) => groupView(group, index, groups))];
    }

    function groupView(group, index, groups) {
        const chosen = graph.selection();
        const letter = window.cltdb.drawing.letter(index);
        const rename = (event) => {
            const name = event.target.value.trim();
            if (name && name !== group.name) graph.operate({ op: "group-rename", group: group.id, name });
            else event.target.value = group.name;
        };
        const others = groups.filter((one) => one.id !== group.id);
        const merge = element(
            "select", { "aria-label": `Merge group ${letter} into`, onchange: (event) => event.target.value && graph.merge(group.id, event.target.value) },
            element("option", { value: "" }, "Merge into …"),
            others.map((one) => element("option", { value: one.id }, one.name)),
        );
        const parts = chosen.filter((id) => group.nodes.includes(id));
        const more = chosen.filter((id) => !group.nodes.includes(id));
        return element(
            "section", { class: "group", "data-group": group.id, "--group": `var(--group-${index % HUES})` },
            element(
                "p", { class: "group-head" },
                element("b", { class: "group-letter" }, letter),
                element("input", { value: group.name, maxlength: 200, "aria-label": `Name of group ${letter}`, onchange: rename, onkeydown: (event) => event.key === "Enter" && event.target.blur() }),
            ),
            nodeList(group.nodes, (id) => [small("×", `Take ${graph.labelOf(id)} out of group ${letter}`, () => graph.operate({ op: "group-remove", group: group.id, nodes: [id] }))]),
            element(
                "p", { class: "actions" },
                button("Select", () => graph.set({ selected: group.nodes[0] ?? null, also: group.nodes.slice(1) }), { "aria-label": `Select group ${letter}` }),
                more.length ? button(`Add the selection (${more.length})`, () => graph.addTo(group.id, more)) : null,
                parts.length && parts.length < group.nodes.length ? button(`Split off the selection (${parts.length})`, () => graph.group(parts)) : null,
                others.length ? merge : null,
                button("Delete", () => graph.operate({ op: "group-delete", group: group.id }), { "aria-label": `Delete group ${letter}` }),
            ),
            noteField(group.id, `Note on group ${letter}`, group),
        );
    }

    /* A note on a group, or on the graph where none is given. */
    function noteField(key, title, group = null) {
        const text = group ? group.note : graph.state.notes.graph || "";
        const write = (event) => {
            if (event.target.value.trim() === text) return;
            graph.operate(group ? { op: "group-note", group: group.id, text: event.target.value } : { op: "note", text: event.target.value });
        };
        return element(
            "details", { "data-of": `note ${key}` },
            element("summary", {}, text ? `${title}: ${text.slice(0, 60)}` : title),
            element("textarea", { rows: 3, maxlength: 10000, "aria-label": title, onchange: write }, text),
        );
    }

    function nodeLists(pinned, hidden) {
        const unpin = (id) => [small("×", `Unpin ${graph.labelOf(id)}`, () => graph.pin(id, false))];
        const show = (id) => [small("show", `Show ${graph.labelOf(id)} again`, () => graph.hide(id, false))];
        const list = (title, nodes, acts, all) =>
            nodes.length
                ? [element("h3", {}, `${title} (${nodes.length}) `, small(all.text, `${all.text}: ${title.toLowerCase()}`, all.act)), nodeList(nodes, acts)]
                : [];
        return [
            ...list("Pinned", pinned, unpin, { text: "unpin all", act: () => graph.pin([...pinned], false) }),
            ...list("Hidden", hidden, show, { text: "show all", act: () => graph.hide([...hidden], false) }),
        ];
    }

    function nodeList(nodes, acts) {
        const one = (id) => {
            const i = graph.data.byId.get(id);
            const place = i === undefined ? "not sent" : `“${graph.data.tokens[graph.data.nodes.position[i]] ?? ""}”`;
            return element(
                "li", {},
                element("button", { type: "button", class: "link", "data-node": id, title: i === undefined ? "" : graph.titleOf(id) }, bdi(graph.labelOf(id))),
                element("span", { class: "quiet" }, " ", bdi(place), " "),
                acts(id),
            );
        };
        const rest = nodes.length - MOST;
        return element("ul", { class: "nodes" }, nodes.slice(0, MOST).map(one), rest > 0 ? element("li", { class: "quiet" }, `and ${rest} more`) : null);
    }

    function proposals() {
        const offered = graph.annotations.proposals;
        if (!offered.length) return [];
        return [
            element(
                "details", { "data-of": "proposals" },
                element("summary", {}, `Proposed groups (${offered.length})`),
                element("p", { class: "actions" }, button("Take over all", () => graph.takeOver(offered))),
                element(
                    "ul", { class: "nodes" },
                    offered.slice(0, MOST).map((one) =>
                        element(
                            "li", {}, bdi(graph.nameOf(one)), element("span", { class: "quiet" }, ` ${one.nodes.length} nodes `),
                            small("take over", `Take over group ${graph.nameOf(one)}`, () => graph.takeOver([one])),
                        ),
                    ),
                ),
            ),
        ];
    }

    /* All changes, also of others and those that were replaced or taken back. */
    function changes() {
        const list = element("ul", { class: "nodes" });
        const fill = async (limit) => {
            const { n, changes: known } = await graph.history(limit);
            list.replaceChildren(
                ...known.map((one) =>
                    element(
                        "li", { class: one.undone ? "undone" : null },
                        bdi(told(one)), element("span", { class: "quiet" }, ` ${one.author}, ${new Date(one.at).toLocaleString()} `),
                        one.undone ? null : small("take back", `Take back: ${told(one)}`, () => graph.undo(one.id)),
                    ),
                ),
                ...(known.length < n && known.length === limit ? [element("li", {}, `The last ${known.length} of ${n} changes. `, small(`show ${MOST} more`, "Show earlier changes", () => fill(known.length + MOST)))] : []),
            );
        };
        const open = (event) => event.target.open && fill(MOST);
        return element("details", { "data-of": "changes", ontoggle: open }, element("summary", {}, "Changes"), list);
    }

    function told(event) {
        const group = graph.state.groups.find((one) => one.id === event.group);
        const name = event.name ?? group?.name ?? "a group";
        const what = event.nodes?.length === 1 ? graph.labelOf(event.nodes[0]) : `${event.nodes?.length ?? 0} nodes`;
        const words = {
            pin: `pinned ${what}`, unpin: `unpinned ${what}`, hide: `hid ${what}`, unhide: `showed ${what} again`,
            label: `named a node “${event.text}”`, note: `noted “${(event.text || "").slice(0, 60)}”`, place: "moved nodes of the subgraph",
            "group-create": `grouped ${what} as “${name}”`, "group-add": `put ${what} into “${name}”`, "group-remove": `took ${what} out of “${name}”`,
            "group-rename": `named a group “${name}”`, "group-note": `noted on “${name}”: ${(event.text || "").slice(0, 60)}`, "group-delete": `deleted “${name}”`,
        };
        return words[event.op] ?? event.op;
    }

    window.cltdb.showGroups = show;
})();
