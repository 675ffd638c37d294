"""A world so small, for a model so small, that `demo train` takes seconds: all of a configuration but its training."""

SMALL_DEMO = """
[world]
people = 16
companies = 8
towns = 8
countries = 5
elements = 6
never_seen_people = 3
never_seen_companies = 2
never_seen_towns = 2
[words]
first_names = 12
last_names = 12
stems = 12
cities = 8
firms = 8
founders = 8
rivers = 8
regions = 8
vocabulary = 3072
[clusters]
branching = 3
[model]
d_model = 16
layers = 3
heads = 2
kv_heads = 1
d_head = 8
d_ffn = 24
positions = 128
[bank]
units = [3, 2]
routed_readings = 12
[memory]
layers = [1]
slots = 4
rows = 4
seen_documents = 4
"""
