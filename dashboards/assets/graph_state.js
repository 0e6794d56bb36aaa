/* The graph page's state: what is selected, pinned, hidden, searched and how it is shown. It lives here, in the browser, and in the
   address; parts of the page listen to it. What is true of the graph comes from the server through `receive`. */

(() => {
    const cltdb = (window.cltdb = window.cltdb || {});
    const KINDS = ["data", "pruned", "annotations", "paths", "subgraph"];
    const PUSH_MS = 250;
    /* State in the address: name in the state -> [name in the address, to text, from text]. */
    const number = [String, (text) => (text.trim() ? Number(text) : NaN)];
    const ids = [(list) => list.join(","), (text) => text.split(",").filter((one) => /^\d+$/.test(one)).map(Number)];
    const ends = [
        (path) => `${path.from}-${path.to}`,
        (text) => (/^\d+-\d+$/.test(text) ? { from: Number(text.split("-")[0]), to: Number(text.split("-")[1]) } : null),
    ];
    const text = [String, String];
    const places = [(list) => list.join(","), (given) => given.split(",").filter((one) => /^\d+:\d+$/.test(one))];
    const LINKED = {
        node_share: ["n", ...number],
        edge_share: ["e", ...number],
        selected: ["sel", ...number],
        also: ["also", ...ids],
        pinned: ["pin", ...ids],
        hidden: ["hide", ...ids],
        edges: ["edges", ...text],
        density: ["d", ...number],
        find: ["find", ...text],
        path: ["path", ...ends],
        stored_path: ["stored", ...number],
        view: ["view", ...text],
        tab: ["tab", ...text],
        open: ["open", ...places],
        zoom: ["z", ...number],
    };
    const EMPTY = {
        selected: null, also: [], pinned: [], hidden: [], groups: [], labels: {}, notes: {},
        edges: "selection", density: 1, find: "", path: null, stored_path: null, view: "graph", tab: "node", open: [], zoom: 1,
        node_share: null, edge_share: null,
    };
    /* A step back in the browser undoes changes of these. */
    const STEPS = ["selected", "path", "stored_path", "view"];
    /* What the server is told at once, for the scores of what is shown and for paths. */
    const PART = ["node_share", "edge_share", "pinned", "hidden"];
    const PATH = ["node_share", "edge_share", "path", "stored_path", "tab"];
    const STORED = ["pinned", "hidden", "groups", "labels", "notes"];

    const graph = (cltdb.graph = {
        data: null,
        pruned: null,
        annotations: null,
        paths: null,
        subgraph: null,
        state: { ...EMPTY },
        listeners: [],
        waiting: null,
    });

    /* listener(changed, graph): `changed` is a Set of names of the state, or of KINDS. */
    graph.on = (listener) => graph.listeners.push(listener);

    graph.tell = (names) => {
        const changed = new Set(names);
        for (const listener of graph.listeners) listener(changed, graph);
    };

    /* Merges a patch into the state, and tells the listeners, the address and the server of it. quietly: no step back of its own; besides: names
       of what else is new. */
    graph.set = (patch, { quietly = false, besides = [] } = {}) => {
        const changed = Object.keys(patch).filter((name) => !same(patch[name], graph.state[name]));
        const names = [...changed, ...besides];
        if (!names.length) return;
        for (const name of changed) graph.state[name] = patch[name];
        writeLink(names.some((name) => STEPS.includes(name)) && !quietly);
        graph.tell(names);
        if (names.includes("selected")) toServer("graph-selected", graph.state.selected);
        if (names.some((name) => PART.includes(name))) toServer("graph-part", of(PART));
        if (names.includes("path") || names.includes("stored_path") || (names.includes("tab") && patch.tab === "paths")) toServer("graph-path", of(PATH));
        tellState();
    };

    /* What the server makes of the whole state is looked at in the subgraph and in the panel Steer only. */
    function tellState() {
        clearTimeout(graph.waiting);
        if (graph.state.view !== "subgraph" && graph.state.tab !== "steer") return;
        graph.waiting = setTimeout(() => toServer("graph-state", of(Object.keys(EMPTY))), PUSH_MS);
    }

    graph.select = (id) => graph.set({ selected: id === null || graph.data?.byId.has(id) ? id : null, also: [] });

    /* The ids that the page shows now, as a Set: what pruning keeps, pinned nodes, the path and `besides`, less what is hidden or too dense. */
    graph.shown = (besides = [graph.state.selected]) => {
        const { data, pruned, state } = graph;
        const forced = [...state.pinned, ...graph.drawnPaths().flatMap((path) => path.nodes), ...besides];
        const hidden = new Set(state.hidden);
        const dense = (id) => data.spread.get(id) > state.density;
        const kept = pruned ? pruned.kept : [];
        return new Set([...kept.filter((id) => !hidden.has(id) && !dense(id)), ...forced].filter((id) => data.byId.has(id)));
    };

    /* The paths that are drawn: those that were asked for, once the server has told them. A path: {nodes, weights}. */
    graph.drawnPaths = () => {
        const { path, stored_path } = graph.state;
        if (path === null && stored_path === null) return [];
        const told = graph.paths;
        return told && same(told.path, path) && told.stored_path === stored_path ? told.paths : [];
    };

    /* What a node is called in few words, and in a line: a user's own label first. */
    graph.labelOf = (id) => {
        const i = graph.data.byId.get(id);
        return i === undefined ? `node ${id}` : graph.state.labels[id] || graph.data.nodes.label[i] || graph.data.nodes.title[i];
    };
    graph.titleOf = (id) => [graph.state.labels[id], graph.data.nodes.title[graph.data.byId.get(id)]].filter(Boolean).join(" · ");

    /* The ids whose token, label, explanation or layer:feature holds what is searched. */
    graph.matches = () => {
        const { data, state } = graph;
        const wanted = state.find.trim().toLowerCase();
        if (!wanted || !data) return [];
        const address = wanted.match(/^(\d+):(\d+)$/);
        const layer = wanted.match(/^layer (\d+)$/);
        return data.nodes.id.filter((id, i) => {
            if (address) return data.nodes.layer[i] === Number(address[1]) && data.nodes.feature[i] === Number(address[2]);
            if (layer) return data.nodes.layer[i] === Number(layer[1]);
            const own = graph.state.labels[id] || "";
            return `${data.nodes.label[i]} ${data.nodes.title[i]} ${own}`.toLowerCase().includes(wanted);
        });
    };

    /* What the server sends: one of KINDS. */
    graph.receive = (name, value) => {
        if (!KINDS.includes(name) || !value) return;
        if (name === "pruned" && graph.data && value.graph_id !== graph.data.graph_id) return;
        graph[name] = name === "data" ? withIndex(value) : value;
        if (name === "data") {
            graph.pruned = graph.annotations = graph.paths = graph.subgraph = null;
            graph.state = { ...EMPTY, node_share: value.node_share, edge_share: value.edge_share, ...fromLink() };
            if (!graph.data.byId.has(graph.state.selected)) graph.state.selected = null;
            graph.linked = Object.fromEntries(["pinned", "hidden"].map((stored) => [stored, graph.state[stored]]));
            if (graph.state.selected !== null) toServer("graph-selected", graph.state.selected);
            tellState();
            toServer("graph-part", of(PART));
            if (graph.state.path || graph.state.stored_path !== null || graph.state.tab === "paths") toServer("graph-path", of(PATH));
        }
        if (name === "annotations") {
            const stored = Object.fromEntries(STORED.filter((key) => key in value).map((key) => [key, value[key]]));
            for (const key of ["pinned", "hidden"]) {  // what the link alone has is shown beside what is stored
                graph.linked[key] = graph.linked[key].filter((id) => !stored[key].includes(id));
                stored[key] = [...stored[key], ...graph.linked[key]];
            }
            graph.set(stored, { quietly: true, besides: [name] });
            return;
        }
        if (name === "pruned") graph.set({ node_share: value.node_share, edge_share: value.edge_share }, { quietly: true });
        graph.tell([name]);
    };

    function withIndex(data) {
        const byId = new Map(data.nodes.id.map((id, i) => [id, i]));
        const positions = new Map();
        const name = (i) => `${data.nodes.layer[i]}:${data.nodes.feature[i]}`;
        data.nodes.id.forEach((_, i) => {
            if (data.nodes.kind[i] !== "feature") return;
            if (!positions.has(name(i))) positions.set(name(i), new Set());
            positions.get(name(i)).add(data.nodes.position[i]);
        });
        /* The share of the prompt's tokens on which the feature of a node is active; 0 for other nodes. */
        const share = (i) => (data.nodes.kind[i] === "feature" ? positions.get(name(i)).size / Math.max(1, data.tokens.length) : 0);
        return { ...data, byId, spread: new Map(data.nodes.id.map((id, i) => [id, share(i)])) };
    }

    function same(one, other) {
        return one === other || JSON.stringify(one) === JSON.stringify(other);
    }

    /* What the address says: of what is stored only what is not stored yet. */
    const forLink = (name) => (graph.annotations?.writable && name in graph.linked ? graph.linked[name] : graph.state[name]);

    function isDefault(name) {
        const value = forLink(name);
        const usual = name in (graph.data || {}) ? graph.data[name] : EMPTY[name];
        return value === null || same(value, usual);
    }

    function fromLink() {
        const given = new URLSearchParams(window.location.search);
        const found = {};
        for (const [name, [key, , read]] of Object.entries(LINKED)) {
            const value = given.has(key) ? read(given.get(key)) : null;
            if (value !== null && !Number.isNaN(value)) found[name] = value;
        }
        return found;
    }

    function writeLink(isStep) {
        if (!graph.data) return;
        const given = new URLSearchParams(window.location.search);
        for (const [name, [key, write]] of Object.entries(LINKED)) {
            if (isDefault(name)) given.delete(key);
            else given.set(key, write(forLink(name)));
        }
        const query = given.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
        const link = window.location.pathname + (query ? `?${query}` : "");
        if (link === window.location.pathname + window.location.search) return;
        window.history[isStep ? "pushState" : "replaceState"]({ graph: graph.data.graph_id }, "", link);
    }

    function of(names) {
        return { graph_id: graph.data.graph_id, ...Object.fromEntries(names.map((name) => [name, graph.state[name]])) };
    }

    function toServer(store, value) {
        if (document.getElementById("graph-drawing")) window.dash_clientside.set_props(store, { data: value });
    }

    /* Back and forward within one graph change the state alone: Dash, which would build the page anew, does not hear of it. */
    window.addEventListener("popstate", (event) => {
        const here = document.getElementById("graph-drawing");
        if (!here || !graph.data || graph.address !== window.location.pathname) return;
        event.stopImmediatePropagation();
        const stored = Object.fromEntries(STORED.map((name) => [name, graph.state[name]]));
        const shares = { node_share: graph.data.node_share, edge_share: graph.data.edge_share };
        graph.set({ ...EMPTY, ...shares, ...fromLink(), ...stored }, { quietly: true });
        for (const name of ["node_share", "edge_share"])
            window.dash_clientside.set_props(`graph-${name.replace("_", "-")}`, { value: graph.state[name] });
    });

    /* Anything with data-node selects that node. */
    document.addEventListener("click", (event) => {
        const link = event.target.closest?.("[data-node]");
        if (link?.dataset.node && graph.data) graph.select(Number(link.dataset.node));
    });

    cltdb.receive = (name) => (value) => {
        if (value) {
            graph.address = window.location.pathname;
            graph.receive(name, value);
        }
        return window.dash_clientside.no_update;
    };
})();
