// The neighbourhood of a feature: a click goes to the feature. Cytoscape keeps where its canvas was; it looks anew before the pointer can click.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.cltdb = window.dash_clientside.cltdb || {};
window.dash_clientside.cltdb.neighbour = (node) => (node && node.href) || window.dash_clientside.no_update;

document.addEventListener("pointerover", (event) => {
    const drawing = event.target instanceof Element && event.target.closest(".neighbourhood .__________cytoscape_container");
    if (drawing && drawing._cyreg) drawing._cyreg.cy.resize();
}, { capture: true, passive: true });
