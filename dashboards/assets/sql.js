/* The editor of the SQL page: Ctrl+Enter asks, names of tables and columns are completed and inserted, the address follows what is asked,
   and a question ends with its page. */

(() => {
    const MAX_NAMES = 8;
    const byId = (id) => document.getElementById(id);
    const names = () => [...document.querySelectorAll("#sql-schema [data-insert]")];

    /* Writes text in place of the `before` characters at the cursor; the browser keeps it for Ctrl+Z. */
    function write(text, before = 0) {
        const editor = byId("sql-editor");
        editor.focus();
        const end = editor.selectionEnd;
        editor.setSelectionRange(before ? end - before : editor.selectionStart, end);
        document.execCommand("insertText", false, text);
    }

    /* Names are quoted where they are no plain words. */
    const quoted = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

    function wordBefore(editor) {
        if (editor.selectionStart !== editor.selectionEnd) return "";
        return editor.value.slice(0, editor.selectionEnd).match(/[A-Za-z_][A-Za-z0-9_]*$/)?.[0] ?? "";
    }

    function suggest() {
        const list = byId("sql-names");
        const word = wordBefore(byId("sql-editor")).toLowerCase();
        const known = new Set(names().map((button) => button.dataset.insert));
        const found = word.length < 2 ? [] : [...known].filter((name) => name.startsWith(word) && name !== word);
        list.replaceChildren(
            ...found.slice(0, MAX_NAMES).map((name) => {
                const button = Object.assign(document.createElement("button"), { type: "button", textContent: name, tabIndex: -1 });
                button.addEventListener("click", () => take(name));
                const item = document.createElement("li");
                item.append(button);
                return item;
            }),
        );
        list.hidden = found.length === 0;
    }

    function take(name) {
        write(quoted(name), wordBefore(byId("sql-editor")).length);
        byId("sql-names").hidden = true;
    }

    function filter(text) {
        const wanted = text.trim().toLowerCase();
        for (const table of document.querySelectorAll("#sql-schema > li > details")) {
            const own = table.querySelector("summary").textContent.toLowerCase().includes(wanted);
            let any = false;
            for (const column of table.querySelectorAll("li")) {
                const hit = column.textContent.toLowerCase().includes(wanted);
                column.hidden = Boolean(wanted) && !hit && !own;
                any ||= hit;
            }
            table.parentElement.hidden = Boolean(wanted) && !own && !any;
            table.open = Boolean(wanted) && any && !own;
        }
    }

    document.addEventListener("keydown", (event) => {
        if (!document.querySelector(".sql")) return;
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest(".question")) {
            event.preventDefault();
            event.target.blur(); /* fields tell their value when they lose the focus */
            event.target.focus();
            setTimeout(() => byId("sql-run").click());
        }
        if (event.target.id !== "sql-editor" || byId("sql-names").hidden) return;
        if (event.key === "Escape") byId("sql-names").hidden = true;
        if (event.key === "Tab" && !event.shiftKey) {
            event.preventDefault();
            take(byId("sql-names").querySelector("button").textContent);
        }
    });

    document.addEventListener("input", (event) => {
        if (event.target.id === "sql-editor") suggest();
        if (event.target.id === "sql-find") filter(event.target.value);
    });

    document.addEventListener("click", (event) => {
        const button = event.target.closest?.("#sql-schema [data-insert]");
        if (button) write(quoted(button.dataset.insert));
    });

    /* The question of a page that is left is not answered any more. */
    let page = null;
    const watch = new MutationObserver(() => {
        if (!document.querySelector(`.sql[data-page="${page.id}"]`)) leave();
    });
    function leave() {
        watch.disconnect();
        if (page) navigator.sendBeacon(page.stop, page.id);
        page = null;
    }
    function arrive(id) {
        leave();
        page = { id, stop: document.querySelector(".sql").dataset.stop };
        watch.observe(document.body, { childList: true, subtree: true });
    }
    window.addEventListener("pagehide", leave);

    window.dash_clientside = Object.assign(window.dash_clientside || {}, {
        cltdb_sql: {
            arrive(id) {
                arrive(id);
                return window.dash_clientside.no_update;
            },
        },
    });
})();
