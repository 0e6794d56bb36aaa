// The neighbourhood of a feature: a click goes to the feature. Cytoscape keeps where its canvas was; it looks anew before the pointer can click.
(() => {
    "use strict";
    function go(event) {
        const href = event.target.data("href");
        if (href) cltdb.visit(href);
    }

    document.addEventListener("pointerover", (event) => {
        const drawing = event.target instanceof Element && event.target.closest(".neighbourhood .__________cytoscape_container");
        if (!drawing || !drawing._cyreg) return;
        const { cy } = drawing._cyreg;
        cy.resize();
        if (!cy.scratch("_walk")) cy.scratch("_walk", cy.on("tap", "node", go));
    }, { capture: true, passive: true });
})();
