"""What the page of an attribution graph is made of. Python says what is true of the graph; what is shown of it, and what is selected, is the
state of the browser (assets/graph_state.js)."""
