// The table of features: which rows it asks the server for, one part at a time, and the question that the address of the page holds.
(() => {
    "use strict";
    const GRID = "search-grid", PAGE = "features";
    const RANGED = ["layer", "score", "density", "max_activation"];
    const ONE = /^\s*(\d{1,9}):(\d{1,9})\s*$/; // layer:feature
    const FORM = { text: "search-text", dict_id: "search-dict", dead: "search-dead" };
    let grid = null; // the API of the grid that is shown
    let form = {}; // what the fields above the table say
    let number = 0, waiting = null, queue = []; // of parts: the number of the last one that was asked for, which it is, those that wait
    const present = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value));
    const set = (id, props) => window.dash_clientside.set_props(id, props);

    /* The filters of the columns as fields of a question, and back: {score: "0.5..0.9"}. */
    function fieldsOf(filters) {
        const fields = filters.text ? { about: filters.text.filter } : {};
        for (const name of RANGED) {
            const { type, filter, filterTo } = filters[name] || {};
            if (type === "inRange") fields[name] = `${filter}..${filterTo}`;
            else if (type) fields[name] = type === "lessThanOrEqual" ? `..${filter}` : `${filter}..`;
        }
        return fields;
    }

    function filtersOf(fields) {
        const filters = fields.about ? { text: { filterType: "text", type: "contains", filter: fields.about } } : {};
        for (const name of RANGED.filter((name) => fields[name])) {
            const [low, high] = fields[name].includes("..") ? fields[name].split("..") : [fields[name], fields[name]];
            const type = low && high ? "inRange" : high ? "lessThanOrEqual" : "greaterThanOrEqual";
            filters[name] = { filterType: "number", type, filter: Number(low || high), filterTo: low && high ? Number(high) : null };
        }
        return filters;
    }

    function sortOf(fields) {
        const colId = (fields.sort || "").replace(/^-/, "");
        return colId ? [{ colId, sort: fields.sort.startsWith("-") ? "desc" : "asc" }] : [];
    }

    function shown(fields) {
        grid.setFilterModel(filtersOf(fields));
        grid.applyColumnState({ state: sortOf(fields), defaultState: { sort: null } });
    }

    /* Parts: the grid may want several at once and forget some; they are asked for one after the other, and late answers are passed over. */
    function next() {
        if (waiting || !queue.length) return;
        waiting = queue.shift();
        const [sorted] = waiting.sortModel;
        const sort = sorted ? { sort: (sorted.sort === "desc" ? "-" : "") + sorted.colId } : {};
        const question = present({ ...form, ...sort, ...fieldsOf(waiting.filterModel) });
        if (waiting.startRow === 0) {
            remember(question);
            const searched = Boolean(form.text) && !ONE.test(form.text);
            grid.setColumnsVisible(["found_in"], searched);
            grid.setColumnsVisible(["promotes"], !searched);
        }
        set("search-wanted", { data: { number: ++number, question, first: waiting.startRow, limit: waiting.endRow - waiting.startRow } });
    }

    function forget() {
        queue = [];
        waiting = null;
    }

    const datasource = {
        getRows(part) {
            if (part.startRow === 0) forget(); // another question
            queue.push(part);
            next();
        },
    };

    function answer(given) {
        if (waiting && given.number === number) {
            const part = waiting;
            waiting = null;
            part.successCallback(given.rows, given.n);
            next();
        }
        return window.dash_clientside.no_update;
    }

    /* What the form says is asked for; `fields`: the question with which the page was opened. */
    async function ask(text, dictId, dead, fields) {
        form = present({ text: (text || "").trim(), dict_id: dictId, dead: (dead || []).length ? "1" : "" });
        const found = await window.dash_ag_grid.getApiAsync(GRID);
        if (found !== grid) {
            grid = found;
            forget();
            shown(fields);
            grid.setGridOption("datasource", datasource);
        } else {
            grid.purgeInfiniteCache();
            grid.ensureIndexVisible(0);
        }
        return form;
    }

    /* The address holds the question. Back and forward change form, filters and order; Dash, which would build the page anew, does not hear of it. */
    const onPage = () => window.location.pathname.endsWith(`/${PAGE}`) && document.getElementById(GRID);

    function remember(question) {
        const search = "?" + new URLSearchParams(question);
        if (!onPage() || search === window.location.search) return;
        const first = !new URLSearchParams(window.location.search).has("dict_id");
        window.history[first ? "replaceState" : "pushState"](window.history.state, "", window.location.pathname + search);
    }

    window.addEventListener("popstate", (event) => {
        if (!onPage() || !grid || grid.isDestroyed()) return;
        event.stopImmediatePropagation();
        const fields = Object.fromEntries(new URLSearchParams(window.location.search));
        shown(fields);
        set(FORM.text, { value: fields.text || "" });
        set(FORM.dict_id, { value: fields.dict_id });
        set(FORM.dead, { value: fields.dead ? ["1"] : [] });
    });

    /* Enter on layer:feature goes to that feature. */
    document.addEventListener("keydown", (event) => {
        const [, layer, feature] = (event.key === "Enter" && event.target.id === FORM.text && ONE.exec(event.target.value)) || [];
        if (layer) set("_pages_location", { pathname: `${beside("feature")}/${encodeURIComponent(form.dict_id)}/${layer}/${feature}`, search: "" });
    });

    /* The address of another page of the app, whose path may have a proxy's before it. */
    const beside = (page) => window.location.pathname.replace(/features$/, page);

    /* Two selected rows can be compared. */
    function compare(rows, dictId) {
        if (!rows || rows.length !== 2) return rows && rows.length ? "select two to compare" : "";
        const [a, b] = rows.map((row) => `${dictId}/${row.name.replace(":", "/")}`);
        const href = `${beside("compare-features")}?${new URLSearchParams({ a, b })}`;
        return { namespace: "dash_core_components", type: "Link", props: { href, children: `Compare ${rows[0].name} with ${rows[1].name}` } };
    }

    window.dash_clientside = window.dash_clientside || {};
    window.dash_clientside.cltdb_features = { ask, answer, compare };
})();
