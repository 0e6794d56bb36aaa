// Component libraries that are loaded by the first component of theirs that a page shows (dashboards/bundles.py). Until then a stand-in is the
// component: it draws nothing, asks for the script, and then hands its properties on.
(() => {
    "use strict";
    const libraries = JSON.parse(document.getElementById("cltdb-bundles").textContent);

    function script(url) {
        return new Promise((resolve, reject) => {
            const element = document.createElement("script");
            element.src = url;
            element.onload = resolve;
            element.onerror = () => reject(new Error(`${url} could not be loaded`));
            document.head.append(element);
        });
    }

    for (const [namespace, { url, components }] of Object.entries(libraries)) {
        const standIns = {};
        const real = {};
        let loading = null;

        // The stand-ins stay in place: React would make a component anew whose type changes.
        const load = () =>
            (loading ??= script(url).then(() => {
                Object.assign(real, window[namespace]);
                window[namespace] = { ...real, ...standIns };
                for (const name of components) {
                    for (const key of Object.keys(real[name]).filter((key) => key.startsWith("dash"))) standIns[name][key] = real[name][key];
                }
            }));

        for (const name of components) {
            const Late = React.lazy(() => load().then(() => ({ default: real[name] })));
            const standIn = (props) => React.createElement(React.Suspense, { fallback: null }, React.createElement(Late, props));
            const isReady = () => real[name]._dashprivate_isLazyComponentReady ?? true;
            // Dash runs no callback of a component before this is true, or kept.
            Object.defineProperty(standIn, "_dashprivate_isLazyComponentReady", { get: () => (real[name] ? isReady() : load().then(isReady)) });
            standIns[name] = standIn;
        }
        window[namespace] = standIns;
    }
})();
