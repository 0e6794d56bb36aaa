/* A user's own label, note and stars of a feature, or label and note of another node of a graph: what dashboards/own.py puts on a page.
   The label stands before what the machine says. */

(() => {
    const cltdb = (window.cltdb = window.cltdb || {});
    const STARRED = { id: "starred", name: "Starred" };
    const SAYS = { saved: "", saving: "Saving …", unsaved: "Not saved yet; it is kept here and tried again.", refused: "Not saved.", readonly: "These pages save nothing." };

    /* The same box may be about another feature later. */
    cltdb.drawers.own = (box, about) => {
        Object.assign(box, { about, filledWith: null, refill: null });
        if (about.feature === null) ofNode(box, about);
        else ofFeature(box, about);
    };

    function ofFeature(box, about) {
        const { dict_id, layer, feature } = about;
        const client = cltdb.annotated("dict_id", dict_id);
        const key = `${layer}:${feature}`;
        const place = { layer, feature };
        const text = (names, op) => [...client.pending].reverse().find((one) => one.op === op && one.layer === layer && one.feature === feature)?.text ?? client.stored?.[names][key] ?? "";
        let seen = null;
        const heard = () => {
            if (!box.isConnected || box.about !== about) return client.listeners.delete(heard);
            if (!client.stored) return;
            fill(box, {
                client,
                label: text("labels", "label"),
                note: text("notes", "note"),
                write: (op, value) => client.send([{ op, ...place, text: value }]),
                stars: starsOf(client, layer, feature),
            });
            if (seen !== null && seen !== client.stored.revision) cltdb.graph?.refresh?.();
            seen = client.stored.revision;
        };
        client.listeners.add(heard);
        if (client.stored) heard();
        client.load();
    }

    /* Other nodes: the log of their graph has their texts. */
    function ofNode(box, { node }) {
        const graph = cltdb.graph;
        box.refill = () =>
            fill(box, {
                client: graph.saving(),
                label: graph.annotations.labels[node] ?? "",
                note: graph.annotations.notes[node] ?? "",
                write: (op, value) => graph.operate({ op, node, text: value }),
                stars: null,
            });
        if (graph.annotations) box.refill();
    }
    cltdb.graph.on((changed) => {
        if (changed.has("annotations")) for (const box of document.querySelectorAll("[data-drawn=own]")) box.refill?.();
    });

    function fill(box, { client, label, note, write, stars }) {
        const status = box.querySelector(".saving");
        if (status) status.textContent = SAYS[client.status] ?? "";
        const now = JSON.stringify([label, note, stars && stars.lists, client.status === "readonly"]);
        if (box.filledWith === now || (box.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), textarea"))) return;
        const opened = new Set([...box.querySelectorAll("details[open]")].map((one) => one.dataset.of));
        box.filledWith = now;
        const { element } = cltdb;
        const changed = (op, before) => (event) => event.target.value.trim() !== before && write(op, event.target.value);
        const readonly = client.status === "readonly" ? { readonly: true } : {};
        box.replaceChildren(
            element(
                "label", {}, "Own label",
                element("input", {
                    value: label, maxlength: 200, placeholder: readonly.readonly ? "none" : "what you call it", onchange: changed("label", label),
                    onkeydown: (event) => event.key === "Enter" && event.target.blur(), class: label ? "has" : "", ...readonly,
                }),
            ),
            element(
                "details", { "data-of": "note" }, element("summary", {}, note ? `Note: ${note.slice(0, 80)}` : "Note"),
                element("textarea", { rows: 3, maxlength: 10000, "aria-label": "Note", onchange: changed("note", note), ...readonly }, note),
            ),
            ...(stars ? [starField(stars, readonly)] : []),
            element("p", { class: "saving quiet", role: "status" }, SAYS[client.status] ?? ""),
        );
        for (const one of box.querySelectorAll("details")) one.open = opened.has(one.dataset.of);
    }

    /* The lists with whether the feature is in each, also as far as changes are not saved yet. */
    function starsOf(client, layer, feature) {
        const lists = client.stored.lists.map(({ id, name, features }) => ({ id, name, has: features.some(([l, f]) => l === layer && f === feature) }));
        for (const one of client.pending) {
            if (one.op === "list-create" && !lists.some(({ id }) => id === one.list)) lists.push({ id: one.list, name: one.name, has: false });
            const list = lists.find(({ id }) => id === one.list);
            if (list && one.features?.some(([l, f]) => l === layer && f === feature)) list.has = one.op !== "unstar";
        }
        const features = [[layer, feature]];
        return {
            lists,
            set: (list, on) => client.send([{ op: on ? "star" : "unstar", list, features }]),
            add: (id, name) => client.send([{ op: "list-create", list: id, name, features }]),
        };
    }

    function starField({ lists, set, add }, readonly) {
        const { element } = cltdb;
        const inSome = lists.filter(({ has }) => has);
        if (!lists.length)
            return element("p", {}, element("button", { type: "button", class: "button quiet", disabled: Boolean(readonly.readonly), onclick: () => add(STARRED.id, STARRED.name) }, "☆ Star"));
        const create = (event) => event.target.value.trim() && add(cltdb.newId(), event.target.value.trim());
        return element(
            "details", { "data-of": "stars" },
            element("summary", {}, inSome.length ? `★ ${inSome.map(({ name }) => name).join(", ")}` : "☆ Lists"),
            lists.map(({ id, name, has }) =>
                element(
                    "label", { class: "check" },
                    element("input", { type: "checkbox", checked: has, disabled: Boolean(readonly.readonly), onchange: (event) => set(id, event.target.checked) }),
                    ` ${name}`,
                ),
            ),
            readonly.readonly ? null : element("label", {}, "New list", element("input", { maxlength: 200, placeholder: "its name", onchange: create })),
        );
    }
})();
