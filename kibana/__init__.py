"""Generator of the Kibana dashboards; run ``make docs`` after a change."""
