// The table of features: which rows it asks the server for, one part at a time, and the question that the address of the page holds.
(() => {
    "use strict";
    const GRID = "search-grid", PAGE = "features";
    const ROW_HEIGHT = 34, HIT_HEIGHT = 66; // those of dashboards/feature/table.py
    const RANGED = ["layer", "score", "density", "max_activation"];
    const ONE = /^\s*(\d{1,9}):(\d{1,9})\s*$/; // layer:feature
    const FORM = { text: "search-text", dict_id: "search-dict", dead: "search-dead" };
    let waiting = null, number = 0; // the part that was asked for last, and its number; the grid asks for one at a time
    let opened = null; // the fields of the address with which the page was opened, once the grid shows them
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

    const grid = () => window.dash_ag_grid.getApi(GRID);

    function show(fields) {
        grid().setFilterModel(filtersOf(fields));
        grid().applyColumnState({ state: sortOf(fields), defaultState: { sort: null } });
    }

    function asked(text, dictId, dead) {
        return present({ text: (text || "").trim(), dict_id: dictId, dead: (dead || []).length ? "1" : "" });
    }

    /* What the server is asked for, where the grid wants a part of its rows. */
    function want(part, text, dictId, dead, fields) {
        const { no_update } = window.dash_clientside;
        if (!part) return no_update;
        if (opened !== fields) {
            opened = fields;
            if (fields.sort || Object.keys(filtersOf(fields)).length) {
                part.failCallback(); // it asks again, with these
                show(fields);
                return no_update;
            }
        }
        waiting = part;
        const [sorted] = part.sortModel;
        const sort = sorted ? { sort: (sorted.sort === "desc" ? "-" : "") + sorted.colId } : {};
        const question = { ...asked(text, dictId, dead), ...sort, ...fieldsOf(part.filterModel) };
        if (part.startRow === 0) remember(question);
        return { number: ++number, question, first: part.startRow, limit: part.endRow - part.startRow };
    }

    function answer(given) {
        if (waiting && given.number === number) {
            const part = waiting;
            waiting = null; // the grid may ask for the next one at once
            part.successCallback(given.rows, given.n);
        }
        return window.dash_clientside.no_update;
    }

    /* The form has changed: all rows are others. */
    function again(text) {
        const searched = Boolean(text && text.trim()) && !ONE.test(text);
        if (waiting) waiting.failCallback();
        waiting = null;
        grid().setColumnsVisible(["found_in"], searched);
        grid().setColumnsVisible(["promotes"], !searched);
        grid().setGridOption("rowHeight", searched ? HIT_HEIGHT : ROW_HEIGHT);
        set(GRID, { className: searched ? "grid features hits" : "grid features" });
        grid().purgeInfiniteCache();
        grid().ensureIndexVisible(0);
        return window.dash_clientside.no_update;
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
        if (!onPage()) return;
        event.stopImmediatePropagation();
        const fields = Object.fromEntries(new URLSearchParams(window.location.search));
        set(FORM.text, { value: fields.text || "" });
        set(FORM.dict_id, { value: fields.dict_id });
        set(FORM.dead, { value: fields.dead ? ["1"] : [] });
        show(fields);
    });

    /* Enter on layer:feature goes to that feature. */
    document.addEventListener("keydown", (event) => {
        const [, layer, feature] = (event.key === "Enter" && event.target.id === FORM.text && ONE.exec(event.target.value)) || [];
        if (!layer) return;
        const dictionary = new URLSearchParams(window.location.search).get("dict_id");
        cltdb.visit(`${beside("feature")}/${encodeURIComponent(dictionary)}/${layer}/${feature}`);
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

    /* Where the random feature is one of the chosen dictionary. */
    function random(dictId) {
        return `${beside("random-feature")}?${new URLSearchParams({ dict_id: dictId })}`;
    }

    window.dash_clientside = window.dash_clientside || {};
    window.dash_clientside.cltdb_features = { want, answer, again, compare, random };
})();
