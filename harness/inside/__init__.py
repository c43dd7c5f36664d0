"""What runs inside the containers. Imports nothing of the harness but the journal and the records."""
