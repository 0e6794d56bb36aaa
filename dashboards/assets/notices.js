// The notice region: what failed, in the form of cltdb's errors. It stands in the document itself, so it is there where React is not.
// `cltdb.notices.show({where, found, expected, do})` adds a notice; the same one again is counted. Failures of Dash are shown by themselves.
(() => {
    "use strict";
    const MAX_SHOWN = 4, MAX_CHARS = 400, PING_MS = 3000;
    const GONE = "the server did not respond";
    const cltdb = (window.cltdb = window.cltdb || {});
    const shown = new Map(); // text of a notice: {element, times}

    function element(name, className, text) {
        const made = document.createElement(name);
        if (className) made.className = className;
        if (text) made.textContent = text.length > MAX_CHARS ? text.slice(0, MAX_CHARS - 1) + "…" : text;
        return made;
    }

    function show({ where, found, expected, do: mend }) {
        const key = `${where}: ${found}`;
        if (shown.has(key)) {
            const known = shown.get(key);
            known.times += 1;
            known.element.querySelector(".times").textContent = `${known.times} times`;
            return;
        }
        if (shown.size >= MAX_SHOWN) remove(shown.keys().next().value);
        const notice = element("section", "failure");
        const close = element("button", "button quiet", "Close");
        close.type = "button";
        close.setAttribute("aria-label", `Close the notice: ${where}`);
        close.addEventListener("click", () => remove(key));
        notice.append(element("b", "", key), element("small", "times"), element("p", "", `Expected ${expected}. To mend it: ${mend}.`), close);
        shown.set(key, { element: notice, times: 1 });
        document.getElementById("notices").append(notice);
    }

    function remove(key) {
        shown.get(key)?.element.remove();
        shown.delete(key);
    }

    // Dash keeps what failed in its store: callbacks without an answer, functions in the browser that threw, components that cannot be drawn.

    function watch(store) {
        const seen = new WeakSet();
        store.subscribe(() => {
            const { frontEnd, backEnd } = store.getState().error;
            for (const failure of [...frontEnd, ...backEnd].reverse()) {
                if (seen.has(failure)) continue;
                seen.add(failure);
                tell(failure.error || {});
            }
        });
    }

    function tell(error) {
        const message = String(error.message || error);
        if (message.includes(GONE)) return tellGone();
        const said = typeof error.html === "string" ? new DOMParser().parseFromString(error.html, "text/html").body.textContent.trim() : "";
        show({
            where: "this page",
            found: [message, said].filter(Boolean).join(": "),
            expected: "none of its parts to fail",
            do: "load it again; if that does not help, report what the terminal of cltdb dash and the browser's console show",
        });
    }

    const noServer = {
        where: "cltdb dash",
        found: "no answer from its server",
        expected: "a server that runs",
        do: "start it again; this page then goes on by itself",
    };
    let pinging = null;

    function tellGone() {
        show(noServer);
        pinging ??= setInterval(ping, PING_MS);
    }

    async function ping() {
        const prefix = JSON.parse(document.getElementById("_dash-config").textContent).requests_pathname_prefix;
        try {
            await fetch(`${prefix}_favicon.ico`, { cache: "no-store" });
        } catch {
            return; // still gone
        }
        pinging = clearInterval(pinging) ?? null;
        remove(`${noServer.where}: ${noServer.found}`);
    }

    const stores = (window.dash_stores = window.dash_stores || []);
    stores.push = (...added) => {
        added.forEach(watch);
        return Array.prototype.push.apply(stores, added);
    };

    function tellThrown(thrown) {
        // A notification that came a frame late harms nothing, and a request that was taken back was meant to be.
        if (String(thrown).startsWith("ResizeObserver") || thrown?.name === "AbortError") return;
        tell(thrown instanceof Error ? thrown : { message: String(thrown) });
    }
    window.addEventListener("error", (event) => event.message && tellThrown(event.error || event.message));
    window.addEventListener("unhandledrejection", (event) => tellThrown(event.reason));

    cltdb.notices = { show };
})();
