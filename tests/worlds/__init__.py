"""What tests are about, made here and nowhere else.

models               random models of every architecture, in memory or as `save_pretrained` writes them
dictionaries         random dictionaries
numbers              a model of three layers whose words are numbers, and dictionaries of it: graphs and interventions
batches              what trainings read, from memory
planted              a harvest in which features fire by known rules: explanations
shared               folders that all processes of a test run share
projects             folders with cltdb.yaml, specs and texts
tables               rows of the database's tables, artifacts that hold them, what a database holds
tiny_experiment      the tables of 2 layers with 3 features each, and random graphs: the database
capitals_experiment  the tables of 4 layers with 30 features each, some of them hostile, and a sweep: the browser
cat_graph            one graph of ten nodes that is written down: foreign formats
"""
