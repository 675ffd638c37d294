"""Files for other tools and for papers: graphs, tables, pages, and the circuit files of other projects."""
