/* The address follows what a page shows, so that a step back and a link come to it again. */

window.dash_clientside = Object.assign(window.dash_clientside || {}, {
    cltdb_page: {
        remember(url) {
            if (url && url !== location.pathname + location.search) history.pushState(null, "", url);
            return window.dash_clientside.no_update;
        },
    },
});
