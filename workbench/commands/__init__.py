"""The commands of `memory-circuits`: one module a command or family; `workbench.cli` lists them."""
