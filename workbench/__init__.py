"""Keep and show: pipeline, runs, figures, exports, command line and app. Importing it imports no torch."""
