"""The HTML report: page, figures, and the sections of each job."""
