"""Click: one thin file per stage of the user's work. Importing it imports neither torch nor Streamlit."""
