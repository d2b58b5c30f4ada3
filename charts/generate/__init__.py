"""What of the chart is made from something else: copies of the CRDs, dashboards, the table of values.

python -m charts.generate            write it
python -m charts.generate --check    say what differs, exit 1 if anything does
"""
