"""Show: drawings, figures and tables of a run as plain values. Importing it imports no torch, Streamlit or Plotly."""
