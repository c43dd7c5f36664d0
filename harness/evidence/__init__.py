"""What happened, and the verdict: journal, results, effects, audit. Knows neither Docker nor Celery."""
