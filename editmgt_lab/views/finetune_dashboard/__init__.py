from .finetune_dashboard import FinetuneDashboard, finetune_dashboard

__all__ = ["FinetuneDashboard", "finetune_dashboard"]
