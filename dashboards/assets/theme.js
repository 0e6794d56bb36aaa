// Light or dark: as the system, or as chosen with the button of the masthead. Loaded in the head, before anything is painted.
// <html data-theme> is "light" or "dark", which style.css goes by; <html data-theme-choice> also "system". What draws with colours of its own
// asks `cltdb.theme.shown` and listens: document.addEventListener("cltdb:theme", (event) => event.detail.shown).
(() => {
    "use strict";
    const KEY = "cltdb-theme";
    const CHOICES = ["system", "light", "dark"];
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: dark)");
    const theme = { choice: "system", shown: "light", choose };
    (window.cltdb = window.cltdb || {}).theme = theme;

    function stored() {
        try {
            return localStorage.getItem(KEY);
        } catch {
            return null; // storage is switched off
        }
    }

    function choose(choice) {
        try {
            localStorage.setItem(KEY, choice);
        } catch {
            // it then lasts as long as the page
        }
        apply(choice);
    }

    function apply(choice) {
        theme.choice = CHOICES.includes(choice) ? choice : "system";
        theme.shown = theme.choice === "system" ? (system.matches ? "dark" : "light") : theme.choice;
        root.dataset.theme = theme.shown;
        root.dataset.themeChoice = theme.choice;
        document.dispatchEvent(new CustomEvent("cltdb:theme", { detail: { choice: theme.choice, shown: theme.shown } }));
    }

    apply(stored());
    system.addEventListener("change", () => apply(theme.choice));
    window.addEventListener("storage", (event) => event.key === KEY && apply(event.newValue)); // chosen in another tab
    document.addEventListener("click", (event) => {
        if (event.target.closest?.(".theme-switch")) choose(CHOICES[(CHOICES.indexOf(theme.choice) + 1) % CHOICES.length]);
    });
})();
