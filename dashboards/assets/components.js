// Cell renderers for dash-ag-grid. React escapes what they show.
var dagcomponentfuncs = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

dagcomponentfuncs.FeatureLink = function (props) {
    if (!props.data) return null; // a row that is on its way
    return React.createElement("a", { href: props.data.href, className: "feature-link" }, props.value);
};
