/* What users make of a graph: operations, what they do to the state at once, and how they are taken back. */

(() => {
    const cltdb = window.cltdb;
    const graph = cltdb.graph;
    let client = null;
    let undo = [];

    const without = (list, gone) => list.filter((one) => !gone.includes(one));
    const joined = (list, more) => [...new Set([...list, ...more])];
    const changed = (state, id, change) => ({
        groups: state.groups.map((group) => (group.id === id ? { ...group, ...change(group) } : group)),
    });
    const written = (texts, key, text) => {
        const { [key]: _, ...others } = texts;
        return text ? { ...others, [key]: text } : others;
    };

    /* op -> what an operation does to {pinned, hidden, groups, labels, notes}: as cltdb/annotations/state.py. */
    const DOES = {
        pin: (state, { nodes }) => ({ pinned: joined(state.pinned, nodes) }),
        unpin: (state, { nodes }) => ({ pinned: without(state.pinned, nodes) }),
        hide: (state, { nodes }) => ({ hidden: joined(state.hidden, nodes) }),
        unhide: (state, { nodes }) => ({ hidden: without(state.hidden, nodes) }),
        label: (state, { node, text }) => ({ labels: written(state.labels, node, text) }),
        note: (state, { node, text }) => ({ notes: written(state.notes, node ?? "graph", text) }),
        place: (state, { places }) => ({ places: { ...state.places, ...places } }),
        "group-create": (state, { group, name, nodes }) => ({
            groups: [...state.groups.filter((one) => one.id !== group), { id: group, name, nodes, note: "", source: "user" }],
        }),
        "group-add": (state, { group, nodes }) => changed(state, group, (one) => ({ nodes: joined(one.nodes, nodes) })),
        "group-remove": (state, { group, nodes }) => changed(state, group, (one) => ({ nodes: without(one.nodes, nodes) })),
        "group-rename": (state, { group, name }) => changed(state, group, () => ({ name })),
        "group-note": (state, { group, text }) => changed(state, group, () => ({ note: text })),
        "group-delete": (state, { group }) => ({ groups: state.groups.filter((one) => one.id !== group) }),
    };

    const apply = (state, operations) =>
        operations.reduce((now, operation) => ({ ...now, ...DOES[operation.op]?.(now, operation) }), state);

    /* What is stored, with what this browser still has to save. */
    const current = () => ({ ...client.stored, ...apply(client.stored, client.pending) });

    /* What the page began with waits for the graph that it is about. */
    let waiting = null;
    cltdb.openAnnotations = (stored) => {
        waiting = stored || waiting;
        start();
        return window.dash_clientside.no_update;
    };
    graph.on((changed) => changed.has("data") && start());

    function start() {
        if (!waiting || graph.data?.graph_id !== waiting.graph_id) return;
        const stored = waiting;
        waiting = null;
        client?.listeners.delete(heard);
        client = cltdb.annotated("graph_id", stored.graph_id);
        client.listeners.add(heard);
        undo = [];
        client.take(stored);
    }

    function heard() {
        if (!document.getElementById("graph-drawing") || graph.data?.graph_id !== client.stored.graph_id) client.listeners.delete(heard);
        else graph.receive("annotations", current());
    }

    graph.saving = () => ({ status: client?.status ?? "saved", said: client?.said ?? "", retry: () => client.retry() });
    graph.history = (limit) => client.history(limit);
    graph.refresh = () => client?.look();
    graph.canUndo = () => undo.length > 0 && client?.status !== "readonly";

    /* Makes changes, which count as one for `undo`. */
    graph.operate = (...operations) => {
        if (!client || !operations.length) return;
        for (const { op, nodes } of operations) {
            const key = { unpin: "pinned", unhide: "hidden" }[op];
            if (key) graph.linked[key] = without(graph.linked[key], nodes);
        }
        undo.push(client.send(operations));
    };

    /* Takes back the last changes that were made here, or the given event. */
    graph.undo = (event) => {
        const ids = event ? [event] : undo.pop();
        if (ids) client.send([...ids].reverse().map((id) => ({ op: "undo", event: id })));
    };

    for (const [verb, back] of [["pin", "unpin"], ["hide", "unhide"]])
        graph[verb] = (nodes, on = true) => graph.operate({ op: on ? verb : back, nodes: [].concat(nodes) });

    const strongest = (nodes) => {
        const influence = (id) => graph.data.nodes.influence[graph.data.byId.get(id)] || 0;
        return nodes.reduce((best, id) => (influence(id) > influence(best) ? id : best), nodes[0]);
    };

    /* The name of a group or proposal: its own, or that of its strongest node. */
    graph.nameOf = (group) => group.name || graph.labelOf(strongest(group.nodes));

    /* Operations that take nodes out of the groups they are in, but for one; a group that is left empty goes. */
    const leave = (nodes, but = null) =>
        graph.state.groups.filter((group) => group.id !== but && group.nodes.some((id) => nodes.includes(id))).map((group) => {
            const stays = without(group.nodes, nodes).length > 0;
            return stays ? { op: "group-remove", group: group.id, nodes: group.nodes.filter((id) => nodes.includes(id)) } : { op: "group-delete", group: group.id };
        });
    const pinned = (nodes) => {
        const loose = without(nodes, graph.state.pinned);
        return loose.length ? [{ op: "pin", nodes: loose }] : [];
    };

    /* The nodes that are selected, the one of the card first. */
    graph.selection = () => joined(graph.state.selected === null ? [] : [graph.state.selected], graph.state.also);

    /* A new group of nodes, which are pinned and leave other groups; its name can be changed at once. */
    graph.group = (nodes = graph.selection()) => {
        if (!nodes.length) return;
        const name = graph.labelOf(strongest(nodes)).slice(0, 200);
        const id = cltdb.newId();
        graph.named = id;
        graph.set({ tab: "groups" });
        graph.operate(...leave(nodes), { op: "group-create", group: id, name, nodes }, ...pinned(nodes));
    };
    graph.addTo = (group, nodes) => graph.operate(...leave(nodes, group), { op: "group-add", group, nodes }, ...pinned(nodes));
    graph.merge = (from, into) => {
        const { nodes } = graph.state.groups.find((group) => group.id === from);
        graph.operate({ op: "group-add", group: into, nodes }, { op: "group-delete", group: from });
    };
    graph.takeOver = (proposals) =>
        graph.operate(
            ...proposals.map((one) => ({ op: "group-create", group: one.id, name: graph.nameOf(one).slice(0, 200), nodes: one.nodes, source: "proposal" })),
            ...pinned(proposals.flatMap((proposal) => proposal.nodes)),
        );
})();
