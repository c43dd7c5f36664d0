"""A shop mails its receipts."""
