/* The address follows what a page shows, so that a link comes to it again, and a step back to what was shown before. */

(() => {
    const here = () => location.pathname + location.search;
    const fields = (url) => String(new URL(url, location.href).searchParams);
    let routed = here(); /* the address that Dash has made the page of; it does not see what `remember` writes */
    let written = false;

    function remember(url) {
        if (url && fields(url) !== fields(location.href)) {
            history.pushState(null, "", url);
            written = true;
        }
        return window.dash_clientside.no_update;
    }

    window.addEventListener("_dashprivate_pushstate", () => {
        routed = here();
        written = false;
    });
    window.addEventListener("popstate", () => {
        const { pathname, search } = location;
        if (written && here() === routed) window.dash_clientside.set_props("_pages_location", { pathname, search });
        routed = here();
    });
    window.dash_clientside = Object.assign(window.dash_clientside || {}, { cltdb_page: { remember } });
})();
