"""The pages: one web application on the store. Torch is never imported and nothing is trained in here."""
