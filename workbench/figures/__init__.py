"""Figures for papers: vector marks laid out once, written as SVG, PDF, PNG, TikZ or a page."""
