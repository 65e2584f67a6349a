"""Tables and plots -> one self-contained HTML page; knows no other part."""
