"""Self-contained HTML pages of tables and plots, and the reports of runs, filters, evaluations and studies."""
