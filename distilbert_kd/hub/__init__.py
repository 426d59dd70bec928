"""From a finished run to the Hub: the model card, the folder that goes out, the push. Nothing imports torch."""
