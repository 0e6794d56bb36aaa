/* What users make, from this browser to the workspace and from other browsers to this one.
   cltdb.annotated(kind, subject) sends operations at once, keeps those that could not be saved, also over a reload, and sends them again;
   it asks every few seconds whether others changed something. kind: "graph_id" or "dict_id". The server's side: dashboards/annotations.py. */

(() => {
    const cltdb = (window.cltdb = window.cltdb || {});
    const POLL_MS = 4000;
    const RETRY_MS = [1000, 3000, 10000];
    const MOST = 200;
    const open = new Map();

    const address = (name, fields = {}) => {
        const prefix = JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;
        return `${prefix}${name}?${new URLSearchParams(fields)}`;
    };
    cltdb.address = address;

    /* An id for an event or a group; crypto.randomUUID is only there where a page came over https or from this machine. */
    cltdb.newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

    cltdb.annotated = (kind, subject) => {
        const key = `${kind} ${subject}`;
        if (!open.has(key)) open.set(key, client(kind, subject));
        return open.get(key);
    };

    function client(kind, subject) {
        const kept = `cltdb annotations ${kind} ${subject}`;
        const one = { stored: null, pending: [], status: "saved", said: "", listeners: new Set() };
        let sending = false;
        let n_sent = 0;
        let failed = 0;
        let again = null;
        let most = MOST; // one at a time after a refusal, so that one change which cannot be saved takes no others along

        const tell = () => one.listeners.forEach((listener) => listener(one));
        const be = (status, said = "") => Object.assign(one, { status, said });

        /* What the server has told of the subject. */
        one.take = (value) => {
            const isFirst = !one.stored;
            one.stored = value;
            if (!value.writable) be("readonly");
            else if (isFirst) one.pending.unshift(...recall(kept));
            tell();
            flush();
        };

        /* Asks what there is, once. */
        one.load = async () => {
            if (one.asked) return;
            one.asked = true;
            try {
                const answer = await fetch(address("annotations", { [kind]: subject }));
                if (answer.ok) one.take(await answer.json());
                else {
                    one.asked = false; // another part of the page may ask again
                    cltdb.notices.show(await answer.json());
                }
            } catch {
                one.asked = false;
            }
        };

        /* Saves operations; returns their ids. */
        one.send = (operations) => {
            const events = operations.map((operation) => ({ id: cltdb.newId(), ...operation }));
            one.pending.push(...events);
            keep();
            be(one.stored && !one.stored.writable ? "readonly" : "saving");
            tell();
            flush();
            return events.map((event) => event.id);
        };

        /* The last changes, {n: how many there are, changes: at most `limit`, the last first}; none where the server does not answer. */
        one.history = async (limit) => {
            try {
                return await (await fetch(address("annotations", { [kind]: subject, history: limit }))).json();
            } catch {
                return { n: 0, changes: [] };
            }
        };
        one.retry = () => flush();

        async function flush() {
            if (sending || !one.pending.length || one.status === "readonly") return;
            sending = true;
            n_sent += 1;
            clearTimeout(again);
            const batch = one.pending.slice(0, most);
            const body = JSON.stringify({ [kind]: subject, operations: batch });
            let refused = null;
            try {
                const answer = await fetch(address("annotations"), {
                    method: "POST", body, headers: { "Content-Type": "application/json" }, keepalive: body.length < 60000,
                });
                if (answer.ok) {
                    one.stored = await answer.json();
                    done(batch);
                } else if (answer.status === 400 && batch.length > 1) {
                    most = 1;
                } else {
                    refused = await answer.json();
                    if (answer.status < 500) {
                        cltdb.notices.show(refused);
                        if (answer.status === 400) done(batch);
                    }
                    if (answer.status !== 400) throw new Error(refused.found);
                }
                failed = 0;
                if (!one.pending.length) most = MOST;
                be(one.pending.length ? "saving" : refused ? "refused" : "saved", refused ? refused.found : "");
            } catch (error) {
                be("unsaved", refused ? `${refused.where}: ${refused.found}` : "no answer from the server");
                again = setTimeout(flush, RETRY_MS[Math.min(failed, RETRY_MS.length - 1)]);
                failed += 1;
            }
            sending = false;
            tell();
            if (one.status === "saving") flush();
        }

        function done(batch) {
            const ids = new Set(batch.map((event) => event.id));
            one.pending = one.pending.filter((event) => !ids.has(event.id));
            keep();
        }

        function keep() {
            try {
                if (one.status === "readonly") return;
                if (one.pending.length) localStorage.setItem(kept, JSON.stringify(one.pending));
                else localStorage.removeItem(kept);
            } catch {
                // no room, or storage is switched off: they stay in this page
            }
        }

        /* Asks whether there is something new. */
        one.look = async () => {
            if (!one.stored || !one.listeners.size || one.pending.length || document.hidden || one.stored.revision === "STORED") return;
            const before = n_sent;
            try {
                const answer = await fetch(address("annotations", { [kind]: subject, revision: one.stored.revision }));
                const value = answer.status === 200 ? await answer.json() : null;
                if (value && n_sent === before) one.take(value);
            } catch {
                // the next look may get an answer; what is to be saved says that there is none
            }
        };
        return one;
    }

    function recall(kept) {
        try {
            return JSON.parse(localStorage.getItem(kept)) || [];
        } catch {
            return [];
        }
    }

    setInterval(() => open.forEach((one) => one.look()), POLL_MS);
    document.addEventListener("visibilitychange", () => open.forEach((one) => one.look()));
})();
