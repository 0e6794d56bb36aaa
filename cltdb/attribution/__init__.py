"""Attribution graphs: which features act on a prompt's logits, and through which direct effects. Interventions check them."""
